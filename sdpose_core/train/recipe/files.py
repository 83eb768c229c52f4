"""Recipes in TOML files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdpose_core.train.recipe.config import TrainConfig
from sdpose_core.train.recipe.presets import preset_config


def load_config(path: Path) -> TrainConfig:
    """Read a TOML file: a top-level ``preset`` names the base, the rest replaces its values.

    Tables are merged into the preset's; ``[[stages]]`` replaces its stages.
    """
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    preset = values.pop("preset", None)
    base = preset_config(str(preset)).to_dict() if preset is not None else {}
    return TrainConfig.from_dict(merge(base, values))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` over it; nested mappings are merged, all else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged
