"""The initial student of a run: a checkpoint, or random weights with an optional backbone."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sdpose_core.checkpoints import find_checkpoint, load_student, trained_path
from sdpose_core.model import PRESETS, Student, StudentConfig
from sdpose_core.skeleton import find_skeleton
from sdpose_core.train.recipe.config import TrainConfig
from sdpose_core.types import ViewGeometry


def first_student(config: TrainConfig) -> tuple[Student, str]:
    """The student of a new run, and a line that names the source of its weights.

    Raises:
        ValueError: an unknown preset, a ``start`` that cannot be read or is a student other than
            ``config.student``, or a ``backbone_start`` that cannot be read or has no matching
            tensor.
    """
    if config.start:
        student = without_scores(load_student(config.start))
        if student.config.name != config.student:
            raise ValueError(
                f"{config.start} is {student.config.name!r}, but the config trains "
                f"{config.student!r}: give a start of the same student, or change the config's"
            )
        return student, f"starts from {Path(config.start).name}"
    student = Student(first_config(config))
    source = "starts from random weights"
    if config.init == "published":
        published_init(student)
        source += " (published initialisation)"
    if config.backbone_start:
        given = config.backbone_start
        path = trained_path(given) if given in PRESETS else Path(given)
        fitted, total = load_backbone(student, path)
        source += f", {fitted} of the backbone's {total} tensors from {path.name}"
    return student, source


def first_config(config: TrainConfig) -> StudentConfig:
    """The shape of the student that ``first_student`` makes; raises ``ValueError`` as it does."""
    if config.start:
        return find_checkpoint(config.start).config
    if config.student not in PRESETS:
        raise ValueError(
            f"unknown student {config.student!r}: expected one of {', '.join(PRESETS)}"
        )
    skeleton = find_skeleton(config.skeleton)
    return replace(PRESETS[config.student], skeleton=skeleton, score_width=0, person_width=0)


def without_scores(student: Student) -> Student:
    """The student without its score heads, which are fitted to peaks that training changes.

    ``python -m sdpose_core.train.scores`` fits them to the trained student.
    """
    if student.scores is None and student.people is None:
        return student
    bare = Student(replace(student.config, score_width=0, person_width=0))
    heads = ("scores.", "people.")
    state = student.state_dict()
    bare.load_state_dict({k: v for k, v in state.items() if not k.startswith(heads)})
    return bare


def check_development(config: StudentConfig, development: ViewGeometry) -> None:
    """Reject a development set that was cut for a student of other sizes.

    Raises:
        ValueError: ``development`` are not the student's sizes.
    """
    if development != config.view:
        raise ValueError(
            f"the development set was cut for {development}, {config.name} has {config.view}"
        )


def published_init(student: Student) -> None:
    """Random weights as in the paper's code.

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
    be under ``state_dict`` and their names begin with ``backbone.`` or ``module.``.

    Returns:
        How many tensors matched, and how many the backbone has (counters excluded).

    Raises:
        ValueError: the file cannot be read, or no tensor matches.
    """
    found = _read_tensors(path)
    needed = {
        key: value
        for key, value in student.backbone.state_dict().items()
        if value.is_floating_point()
    }
    fitting = {
        key: found[key] for key, value in needed.items()
        if key in found and found[key].shape == value.shape
    }  # fmt: skip
    if not fitting:
        raise ValueError(f"{path}: no tensor fits the backbone {student.config.backbone!r}")
    student.backbone.load_state_dict(fitting, strict=False)
    return len(fitting), len(needed)


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
