"""Commands that need more than what serving installs."""

from __future__ import annotations

import importlib.util


def need(extra: str, *modules: str) -> None:
    """Check that an optional part is installed, before anything is read or written.

    Raises:
        ValueError: a module of it is missing; the message says what to install.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"this command needs {', '.join(missing)}: pip install -e '.[{extra}]' in a clone, in "
            'images as docs/deployment.md says, "The images"'
        )
