"""Checkpoint files: our self-describing safetensors, and the published ``.pth``."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdpose_core.checkpoints.official import config_from_shapes, translate
from sdpose_core.files.whole_file import whole_file
from sdpose_core.messages import error_line
from sdpose_core.model import Student, StudentConfig
from sdpose_core.skeleton import COCO17, Skeleton, SkeletonError
from sdpose_core.skeleton.files import skeleton_of

FORMAT: Final = "sdpose-student-1"
OFFICIAL_SUFFIXES: Final = (".pth", ".pt")


class CheckpointError(ValueError):
    """A file that cannot be used as a student or written; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Content of a student file.

    Attributes:
        config: The network.
        state: Weights under our key names, in the precision of the file.
        training: Facts of the training run and of its evaluation, free form.
    """

    config: StudentConfig
    state: dict[str, Tensor]
    training: dict[str, Any] = field(default_factory=dict)


def save_student(
    student: Student,
    path: str | os.PathLike[str],
    training: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = torch.float16,
) -> None:
    """Write config, skeleton, training facts and weights into one safetensors file.

    The file appears whole or not at all. Weights are stored as ``dtype`` (None: unchanged),
    counters always unchanged. Loading converts to float32.

    Raises:
        CheckpointError: the file cannot be written there.
    """
    state = {
        key: (value.to(dtype) if dtype is not None and value.is_floating_point() else value)
        .detach()
        .cpu()
        .contiguous()
        for key, value in student.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "config": json.dumps(student.config.to_dict()),
        "keypoints": json.dumps(student.config.skeleton.keypoints),
        "training": json.dumps(dict(training or {})),
    }
    if student.config.skeleton != COCO17:
        metadata["skeleton"] = json.dumps(student.config.skeleton.to_dict())
    target = Path(path)
    try:
        with whole_file(target) as partial:
            save_file(state, partial, metadata=metadata)
            partial.chmod(0o644)  # the library makes it private; a service may run as another user
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{target}: cannot be written ({error})") from error


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read either kind of file.

    Raises:
        CheckpointError: the file is missing, truncated or foreign.
    """
    target = Path(path)
    if not target.is_file():
        raise CheckpointError(f"{target}: no such file")
    if target.suffix in OFFICIAL_SUFFIXES:
        return _read_official(target)
    return _read_safetensors(target)


def read_training_facts(path: str | os.PathLike[str]) -> tuple[StudentConfig, dict[str, Any]]:
    """Config and training facts of one of our files, without reading its weights."""
    with _opened(Path(path)) as file:
        return _describe(Path(path), file.metadata())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; whatever its reader cannot make sense of becomes our error."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def _describe(path: Path, metadata: dict[str, str] | None) -> tuple[StudentConfig, dict[str, Any]]:
    if not metadata or metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: a safetensors file, but not of the format {FORMAT!r} that sdpose writes"
        )
    try:
        described = json.loads(metadata["config"])
        skeleton = _skeleton(metadata, path)
        training = json.loads(metadata["training"])
        if not isinstance(described, dict) or not isinstance(training, dict):
            raise ValueError("config and training must be objects")
        config = StudentConfig.from_dict(described, skeleton)
    except (KeyError, ValueError, TypeError, ZeroDivisionError, RecursionError) as error:
        raise CheckpointError(f"{path}: its description is damaged ({error})") from error
    return config, training


def _skeleton(metadata: dict[str, str], path: Path) -> Skeleton:
    """The described one; a file without a description has names alone, COCO's."""
    if "skeleton" in metadata:
        return skeleton_of(json.loads(metadata["skeleton"]), str(path))
    names = json.loads(metadata["keypoints"])
    if tuple(names) != COCO17.keypoints:
        raise SkeletonError(f"{len(names)} keypoints that are not COCO's, and no skeleton")
    return COCO17


def _read_safetensors(path: Path) -> Checkpoint:
    with _opened(path) as file:
        config, training = _describe(path, file.metadata())
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    return Checkpoint(config, state, training)


class _Placeholder:
    """Stands for an object of a library that need not be installed."""

    def __new__(cls, *_: Any, **__: Any) -> _Placeholder:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        del state


def _load_pickle(path: Path) -> Any:
    """``torch.load`` with ``weights_only``; foreign classes become placeholders, never code."""
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # the format before PyTorch 1.6, whose names it cannot list
        foreign = []
    stand_ins: list[Any] = [(_Placeholder, name) for name in foreign]
    with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other pickle protocols; we say what fails
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_official(path: Path) -> Checkpoint:
    try:
        content = _load_pickle(path)
    except Exception as error:  # a damaged pickle fails in any way there is
        raise CheckpointError(
            f"{path}: not a readable PyTorch checkpoint ({error_line(error)})"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{path}: it holds no state_dict")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    try:
        ours = translate(tensors)
        config = config_from_shapes(ours)
    except ValueError as error:
        raise CheckpointError(f"{path}: not an SDPose student: {error}") from error
    return Checkpoint(config, ours, {"source": "official SDPose checkpoint"})


def build_student(checkpoint: Checkpoint, path: str) -> Student:
    """The network of a checkpoint in float32 and evaluation mode.

    Raises:
        CheckpointError: naming keys that are missing, unexpected or of another shape, or a
            config that describes no network.
    """
    try:
        student = Student(checkpoint.config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its config describes no network ({error})") from error
    tensors = student.state_dict()
    problems = []
    missing = sorted(tensors.keys() - checkpoint.state.keys())
    unexpected = sorted(checkpoint.state.keys() - tensors.keys())
    if missing:
        problems.append(f"{len(missing)} keys are missing ({', '.join(missing[:3])})")
    if unexpected:
        problems.append(f"{len(unexpected)} keys are unexpected ({', '.join(unexpected[:3])})")
    for key in sorted(tensors.keys() & checkpoint.state.keys()):
        expected, actual = tuple(tensors[key].shape), tuple(checkpoint.state[key].shape)
        if expected != actual:
            problems.append(f"{key} is {actual}, expected {expected}")
            break
    if problems:
        raise CheckpointError(f"{path}: {'; '.join(problems)}")
    for key, value in checkpoint.state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {key} holds values that are not finite")
    student.load_state_dict(
        {key: value.to(tensors[key].dtype) for key, value in checkpoint.state.items()}
    )
    return student.eval()
