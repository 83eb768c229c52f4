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
from sdpose_core.model.backbones import STRIDE
from sdpose_core.train.recipe.config import StageConfig, TrainConfig
from sdpose_core.types import PUBLISHED_VIEW, ViewGeometry


def first_student(config: TrainConfig) -> tuple[Student, str]:
    """The student of a new run, and a line that names the source of its weights.

    Raises:
        ValueError: an unknown preset, a ``start`` that cannot be read or is a student other than
            ``config.student``, or a ``backbone_start`` that cannot be read or has no matching
            tensor.
    """
    if config.student not in PRESETS:
        raise ValueError(
            f"unknown student {config.student!r}: expected one of {', '.join(PRESETS)}"
        )
    if config.start:
        student = without_scores(load_student(config.start))
        if student.config.name != config.student:
            raise ValueError(
                f"{config.start} is {student.config.name!r}, but the config trains "
                f"{config.student!r}: give a start of the same student, or change the config's"
            )
        return student, f"starts from {Path(config.start).name}"
    student = Student(replace(PRESETS[config.student], score_width=0, person_width=0))
    said = "starts from random weights"
    if config.init == "published":
        published_init(student)
        said += " (published initialisation)"
    if config.backbone_start:
        given = config.backbone_start
        path = trained_path(given) if given in PRESETS else Path(given)
        fitted, total = load_backbone(student, path)
        said += f", {fitted} of the backbone's {total} tensors from {path.name}"
    return student, said


def first_view(config: TrainConfig) -> ViewGeometry:
    """The sizes of the student that ``first_student`` makes; raises ``ValueError`` as it does."""
    if config.start:
        return find_checkpoint(config.start).config.view
    if config.student not in PRESETS:
        return PUBLISHED_VIEW  # ``first_student`` will raise
    return PRESETS[config.student].view


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


def stage_size(stage: StageConfig, config: StudentConfig) -> tuple[int, int]:
    """Height and width of the images that the backbone sees in a stage."""
    return stage.size or config.input_size


def served_config(config: StudentConfig, run: TrainConfig) -> StudentConfig:
    """How a run's student is served: its loss decides the kind of maps, its last stage the size.

    Raises:
        ValueError: the last stage's size is not the crop's divided by an integer, or a stage's is
            not a whole number of patches; unsupported cycles; a loss or a size unsuitable for a
            student that corrects its backbone's heatmaps.
    """
    sizes = [stage_size(stage, config) for stage in run.stages]
    for number, (size, stage) in enumerate(zip(sizes, run.stages, strict=True), start=1):
        # The backbone's map is the image size divided by its stride, rounded up.
        if any(
            -(-side // STRIDE) % patch for side, patch in zip(size, config.patch_size, strict=True)
        ):
            raise ValueError(
                f"stage {number}: an image of {size} is not a whole number of patches of "
                f"{tuple(STRIDE * patch for patch in config.patch_size)} pixels"
            )
        if stage.cycles is not None:
            try:
                config.cycles.check(stage.cycles)
            except ValueError as error:
                raise ValueError(f"stage {number}: {config.name}: {error}") from error
    try:
        config.cycles.check(run.score_cycles)
    except ValueError as error:
        raise ValueError(f"score_cycles: {config.name}: {error}") from error
    if config.head == "correction":
        _check_correction(config, run, sizes)
    height, width = config.input_size
    last = sizes[-1]
    if height % last[0] or height // last[0] * last[1] != width:
        raise ValueError(
            f"the last stage's size {last} must be {(height, width)} divided by a whole number"
        )
    logits = run.loss.heatmap == "cross_entropy"
    return replace(config, heatmap_kind="logits" if logits else "gaussian", pool=height // last[0])


def _check_correction(
    config: StudentConfig, run: TrainConfig, sizes: list[tuple[int, int]]
) -> None:
    """Reject settings incompatible with the backbone's own heatmaps."""
    if run.loss.heatmap == "cross_entropy":
        raise ValueError(
            f"loss.heatmap: {config.name} corrects the Gaussian heatmaps of its backbone, which "
            "cross_entropy would unlearn: set mse"
        )
    if run.loss.dense > 0 or run.loss.stem > 0:
        raise ValueError(
            f"loss.dense and loss.stem: {config.name} already has its backbone's heatmaps: set 0"
        )
    other = [size for size in sizes if tuple(size) != config.input_size]
    if other:
        raise ValueError(
            f"a stage of size {other[0]}: {config.name} outputs heatmaps of its crop's size: "
            f"omit the stages' size, it is {config.input_size}"
        )


def check_fit(
    run: TrainConfig, config: StudentConfig, development: ViewGeometry | None, processes: int
) -> None:
    """Reject incompatible student, development set and processes of a run.

    ``development``: the sizes that the development set was cut for, if any.

    Raises:
        ValueError: they are not the student's; or several processes and a stage without cycles.
    """
    if development is not None and development != config.view:
        raise ValueError(
            f"the development set was cut for {development}, {config.name} has {config.view}"
        )
    alone = config.train_cycles > 0 and any(stage.cycles == 0 for stage in run.stages)
    if alone and processes > 1:
        raise ValueError(
            "a stage of 0 cycles gives the transformer no gradients, which several "
            "processes do not support: train it with one (--devices 1)"
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
    lie under ``state_dict`` and their names begin with ``backbone.`` or ``module.``.

    Returns:
        How many tensors matched, and how many the backbone has (counters excluded).

    Raises:
        ValueError: the file cannot be read, or no tensor matches.
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
