"""A run's files on disk: everything that resuming needs, each written atomically."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sdpose_core.files.whole_file import whole_file
from sdpose_core.model import PRESETS, StudentConfig
from sdpose_core.skeleton import COCO17
from sdpose_core.skeleton.files import skeleton_of
from sdpose_core.train.recipe.config import TrainConfig
from sdpose_core.train.recipe.progress import Counters

STATE_NAME = "state.pt"
CONFIG_NAME = "config.json"


def run_files(folder: Path) -> list[Path]:
    """Files that a run writes into its folder."""
    names = (STATE_NAME, CONFIG_NAME, "best.safetensors", "last.safetensors", "log.csv")
    return [folder / name for name in names]


def write_config(folder: Path, config: TrainConfig) -> None:
    """Write ``config.json`` of a run folder."""
    text = json.dumps(config.to_dict(), indent=1) + "\n"
    with whole_file(folder / CONFIG_NAME) as partial:
        partial.write_text(text)


def read_config(folder: Path) -> TrainConfig:
    """The config written by ``write_config``; raises ``FileNotFoundError`` or ``ValueError``."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {folder} contains no run")
    return TrainConfig.from_dict(json.loads(path.read_text()))


def write_state(folder: Path, counters: Counters, parts: dict[str, Any]) -> None:
    """Write ``state.pt`` of a run folder; ``parts`` are state dicts and plain values by name."""
    content = {"counters": asdict(counters), **parts}
    with whole_file(folder / STATE_NAME) as partial:
        torch.save(content, partial)


def read_state(folder: Path) -> tuple[Counters, dict[str, Any]]:
    """The state written by ``write_state``.

    Raises:
        FileNotFoundError: the run has no state yet.
        ValueError: the file is damaged or contains something else.
    """
    path = folder / STATE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path}: nothing to resume from")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return Counters(**content.pop("counters")), content
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a readable state of a run ({error})") from error


def student_of(parts: dict[str, Any]) -> StudentConfig:
    """The student in the parts of a state; SDPose-T's if they hold none."""
    if "student" not in parts:
        return PRESETS["sdpose-t"]
    skeleton = parts.get("skeleton")
    own = skeleton_of(skeleton, "the state of the run") if skeleton else COCO17
    return StudentConfig.from_dict(parts["student"], own)
