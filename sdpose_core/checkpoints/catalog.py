"""Students by name: which have embedded weights, and where to get those of the others."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

from sdpose_core.checkpoints.files import (
    Checkpoint,
    CheckpointError,
    build_student,
    read_checkpoint,
    read_training_facts,
)
from sdpose_core.embedded import OFFICIAL_HELP, embedded_path
from sdpose_core.model import PAPER, PRESETS, Student

DEFAULT_STUDENT: Final = "sdpose-lite"
"""The default student; its weights come with the package."""


def trained_path(name: str) -> Path:
    """``embedded_path`` of a preset that must have trained weights.

    Raises:
        CheckpointError: there are none; the message names the presets with weights, and what to do.
    """
    path = embedded_path(name)
    if path is None:
        others = ", ".join(preset for preset in PRESETS if embedded_path(preset)) or "no student"
        official = f", or {OFFICIAL_HELP}" if name in PAPER else ""
        raise CheckpointError(
            f"{name}: this package has no trained weights for it, only for {others}; "
            f"train it (sdpose train) and pass the path of its checkpoint{official}"
        )
    return path


def find_checkpoint(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint of a preset's name or a path.

    Raises:
        CheckpointError: a preset without trained weights, or a file that cannot be used.
    """
    return read_checkpoint(_path_of(os.fspath(name_or_path)))


def checkpoint_digest(name_or_path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file of a preset's name or a path.

    Raises:
        CheckpointError: there is no such file.
    """
    path = _path_of(os.fspath(name_or_path))
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _path_of(name: str) -> Path:
    if name in PRESETS:
        return trained_path(name)
    if Path(name).suffix or os.sep in name or Path(name).exists():
        return Path(name)
    raise CheckpointError(
        f"unknown student {name!r}: expected one of {', '.join(PRESETS)} or the path of a "
        ".safetensors or .pth file"
    )


def load_student(
    name_or_path: str | os.PathLike[str] = DEFAULT_STUDENT, *, allow_untrained: bool = False
) -> Student:
    """A student in float32 and evaluation mode, on the CPU.

    Args:
        name_or_path: A preset such as ``"sdpose-lite"``, or one of our ``.safetensors`` files or an
            official ``.pth``.
        allow_untrained: Initialise a preset without weights randomly instead of raising, for
            training and speed measurements.

    Raises:
        CheckpointError: no such student, or a file that cannot be used.
    """
    name = os.fspath(name_or_path)
    if allow_untrained and name in PRESETS and embedded_path(name) is None:
        return Student(PRESETS[name]).eval()
    return build_student(find_checkpoint(name), name)


def training_facts(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Training facts of an embedded preset or of one of our files; empty for other students."""
    path = embedded_path(os.fspath(name_or_path)) or Path(name_or_path)
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    return read_training_facts(path)[1]
