"""TOML files of the operator: settings, keys, cameras."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def read_toml(path: Path, wrong: type[ValueError]) -> dict[str, Any]:
    """The tables of a file. Raises `wrong` with one sentence that names it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise wrong(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # also bytes that are not UTF-8
        raise wrong(f"{path}: not a TOML file: {error}") from None
