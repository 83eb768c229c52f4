"""The environment of tests and of the documents' examples: nothing of the user's shell decides."""

from __future__ import annotations

from collections.abc import Mapping

_KEPT = {"LANG", "PATH", "TERM", "TMPDIR", "TZ"}
_KEPT_PREFIXES = ("LC_", "PYTEST_", "SSL_CERT_")


def clean(environment: Mapping[str, str], home: str) -> dict[str, str]:
    """The part of `environment` that may reach a test, and a separate HOME.

    Settings (`SDPOSE_*`), proxies, thread counts and the interpreter's options may not.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return kept | {"HOME": home}
