"""The student that a run begins with: a checkpoint, or random weights and perhaps a backbone."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sdpose_core.checkpoints import load_student
from sdpose_core.model import PRESETS, Student, StudentConfig
from sdpose_core.train.config import TrainConfig


def first_student(config: TrainConfig) -> tuple[Student, str]:
    """The student of a fresh run, and a line that says where its weights come from.

    Raises:
        ValueError: an unknown preset, a ``start`` that cannot be read or is another student than
            ``config.student``, or a ``backbone_start`` of which nothing fits.
    """
    if config.student not in PRESETS:
        raise ValueError(
            f"unknown student {config.student!r}: expected one of {', '.join(PRESETS)}"
        )
    if config.start:
        student = load_student(config.start)
        if student.config.name != config.student:
            raise ValueError(
                f"{config.start} is {student.config.name!r}, but the config trains "
                f"{config.student!r}: give a start of the same student, or change the config's"
            )
        return student, f"starts from {Path(config.start).name}"
    student = Student(PRESETS[config.student])
    said = "starts from random weights"
    if config.init == "published":
        published_init(student)
        said += " (published initialisation)"
    if config.backbone_start:
        fitted, total = load_backbone(student, Path(config.backbone_start))
        said += f", {fitted} of the backbone's {total} tensors from "
        said += Path(config.backbone_start).name
    return student, said


def served_config(config: StudentConfig, run: TrainConfig) -> StudentConfig:
    """How the student of a run serves: its loss decides the kind of maps, its last stage the size.

    Raises:
        ValueError: the last stage's size is not the crop's divided by a whole number, or a stage's
            is not a whole number of patches.
    """
    for number, stage in enumerate(run.stages, start=1):
        # The backbone's map is a quarter of the picture, rounded up.
        if any(
            -(-size // 4) % patch for size, patch in zip(stage.size, config.patch_size, strict=True)
        ):
            raise ValueError(
                f"stage {number}: a picture of {stage.size} is not a whole number of patches of "
                f"{tuple(4 * patch for patch in config.patch_size)} pixels"
            )
    height, width = config.input_size
    last = run.stages[-1].size
    if height % last[0] or height // last[0] * last[1] != width:
        raise ValueError(
            f"the last stage's size {last} must be {(height, width)} divided by a whole number"
        )
    logits = run.loss.heatmap == "cross_entropy"
    return replace(config, heatmap_kind="logits" if logits else "gaussian", pool=height // last[0])


def published_init(student: Student) -> None:
    """Random weights as the paper's code draws them.

    Convolutions of the backbone from N(0, 0.001), the transformer's linear layers and the patch
    embedding by the library's default; head and keypoint tokens keep their truncated normal 0.02.
    """
    for module in student.backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.001)
    student.patch_embedding.reset_parameters()
    for module in student.encoder.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()


def load_backbone(student: Student, path: Path) -> tuple[int, int]:
    """Copy a pretrained backbone's tensors where name and shape fit.

    ``path``: a ``.safetensors`` or PyTorch file of, say, HRNet-W32 for ImageNet; its tensors may
    lie under ``state_dict`` and their names begin with ``backbone.`` or ``module.``.

    Returns:
        How many tensors fitted, and how many the backbone has (counters left out).

    Raises:
        ValueError: the file cannot be read, or nothing in it fits.
    """
    found = _read_tensors(path)
    wanted = {
        key: value
        for key, value in student.backbone.state_dict().items()
        if value.is_floating_point()
    }
    fitting = {
        key: found[key] for key, value in wanted.items()
        if key in found and found[key].shape == value.shape
    }  # fmt: skip
    if not fitting:
        raise ValueError(f"{path}: no tensor fits the backbone {student.config.backbone!r}")
    student.backbone.load_state_dict(fitting, strict=False)
    return len(fitting), len(wanted)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a readable file of tensors ({error})") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {
        str(key).removeprefix("module.").removeprefix("backbone."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }
