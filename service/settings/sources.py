"""Where settings come from, and one sentence about what is wrong with one."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.errors import shortened
from service.settings.fields import EMPTY, PREFIX, REPLACED, Settings
from service.toml_files import read_toml

CONFIG = "SDPOSE_CONFIG"
"""Names a TOML file with settings; not a setting itself."""


class SettingsError(ValueError):
    """One sentence on which setting is wrong and why."""


def load_settings(config: str | os.PathLike[str] | None = None, **overrides: object) -> Settings:
    """Settings from `overrides` (those that are not None), the environment and a TOML file.

    Of these the first that has a setting decides. The file is `config`, else what `SDPOSE_CONFIG`
    names; its keys are the names of the fields.

    Raises `SettingsError` with one sentence that names the setting or the file.
    """
    known = {name.upper() for name in os.environ}
    filed = {
        name: value
        for name, value in _read_file(config).items()
        if name not in REPLACED and PREFIX + name.upper() not in known
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**{**filed, **given})
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None


def ignored_settings(config: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Names that are set but are no settings, each with the reason; `config` as `load_settings`.

    A variable with the prefix is likely a typo; `REPLACED` has the former settings.
    """
    ignored = {name: REPLACED[name] for name in _read_file(config) if name in REPLACED}
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(PREFIX).lower()
        read = name in Settings.model_fields or variable.upper() == CONFIG
        if variable.upper().startswith(PREFIX) and not read:
            ignored[variable] = REPLACED.get(name, "there is no such setting")
    return ignored


def _read_file(config: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The values of the file, if there is one. Raises `SettingsError`."""
    path = os.environ.get(CONFIG) if config is None else config
    if path is None:
        return {}
    if not str(path).strip():
        raise SettingsError(f"{CONFIG} {EMPTY}")
    settings = read_toml(Path(path), SettingsError)
    for name in settings:
        if name not in Settings.model_fields and name not in REPLACED:
            similar = get_close_matches(name, Settings.model_fields, n=1)
            hint = f"; did you mean {similar[0]}?" if similar else ""
            raise SettingsError(f"{path}: there is no setting {shortened(name)}{hint}")
    return settings


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return reason
    name = str(first["loc"][0])
    if reason == EMPTY:
        return f"{PREFIX}{name.upper()} {reason}"
    shown = "" if name == "api_keys" else f" (got {shortened(first['input'])})"
    return f"{PREFIX}{name.upper()} is wrong: {reason}{shown}"
