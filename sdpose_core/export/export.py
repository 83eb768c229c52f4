"""Exporting a student, and checking that the file answers as the student does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdpose_core.export import formats
from sdpose_core.export.network import (
    LAYOUTS,
    HeatmapNetwork,
    KeypointNetwork,
    Layout,
    facts_of,
)
from sdpose_core.model import Student

PIXELS: Final = 0.05
"""Largest distance of a keypoint of the file from the student's, pixels of the crop."""
VALUES: Final = 2e-3
"""Largest difference of a score or of a heatmap's pixel."""
CLEAR_PEAK: Final = 0.05
"""Joints that score less may lie anywhere: their maps are flat to the last bits."""


@dataclass(frozen=True)
class Format:
    """One format: file name suffixes, the first is the usual one, and how it is written and run.

    ``weights``: suffix of a second file beside the first; empty for none.
    """

    suffixes: tuple[str, ...]
    write: Callable[[formats.Network, Tensor, Path, dict[str, Any]], None]
    read: Callable[[Path], formats.Runner]
    weights: str = ""


FORMATS: Final[Mapping[str, Format]] = {
    "onnx": Format((".onnx",), formats.write_onnx, formats.read_onnx),
    "openvino": Format((".xml",), formats.write_openvino, formats.read_openvino, ".bin"),
    "torchscript": Format(
        (".torchscript", ".pt", ".ts"), formats.write_torchscript, formats.read_torchscript
    ),
}


def format_of(target: Path, name: str | None = None) -> str:
    """The format of a file; ``name`` None takes it from the suffix.

    Raises:
        ValueError: an unknown format or suffix, or one that does not belong to the other.
    """
    by_suffix = {s: name for name, each in FORMATS.items() for s in each.suffixes}
    if name is not None and name not in FORMATS:
        raise ValueError(f"format {name!r}: expected one of {', '.join(FORMATS)}")
    if name is None and target.suffix not in by_suffix:
        raise ValueError(f"{target}: expected a name ending in {', '.join(by_suffix)}")
    if name is not None and target.suffix not in FORMATS[name].suffixes:
        suffixes = " or ".join(FORMATS[name].suffixes)
        raise ValueError(f"{target}: {name} files end in {suffixes}")
    return name or by_suffix[target.suffix]


def files_of(target: Path, name: str) -> list[Path]:
    """The files that an export in this format consists of."""
    weights = FORMATS[name].weights
    return [target.with_suffix(weights), target] if weights else [target]


def export_student(
    student: Student,
    target: Path,
    *,
    format: str | None = None,
    cycles: int | None = None,
    keypoints: bool = False,
    layout: str = "nchw",
    facts: Mapping[str, Any] | None = None,
) -> float:
    """Write a student's served pass for another runtime, for any batch size, and check the file.

    The check runs the file on smooth random crops, in batches other than the one it was traced
    with, and compares it with the student in float32. A file that fails it is not left behind.

    Args:
        student: In float32.
        target: Its suffix is the format's.
        format: One of ``FORMATS``; None takes it from the suffix.
        cycles: How often the transformer runs; None is the student's own number.
        keypoints: uint8 crops in, keypoints with scores out (``KeypointNetwork``); else float crops
            in, heatmaps out (``HeatmapNetwork``).
        layout: Of the crops, ``"nchw"`` or ``"nhwc"``; heatmap networks take ``"nchw"``.
        facts: Added to the metadata: licence, origin.

    Returns:
        The largest difference that was found: pixels of the crop, or values of the heatmaps.

    Raises:
        ValueError: an unknown format or layout, a suffix of another format, cycles that the student
            does not have, a package that is missing, or a file that answers otherwise.
    """
    name = format_of(target, format)
    kind = FORMATS[name]
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r}: expected {' or '.join(LAYOUTS)}")
    if layout != "nchw" and not keypoints:
        raise ValueError("layout: heatmap networks take nchw; ask for keypoints")
    count = student.config.cycles.check(cycles)
    student = student.eval()
    network = (
        KeypointNetwork(student, count, _layout(layout))
        if keypoints
        else HeatmapNetwork(student, count)
    ).eval()
    about = {**facts_of(student, count), **network.facts(), **(facts or {})}
    with torch.inference_mode():
        example = network.example(smooth_crops(2, student.config.input_size, seed=0))
    files = files_of(target, name)
    with TemporaryDirectory(".partial", f".{target.name}.", target.parent) as folder:
        draft = Path(folder) / target.name
        kind.write(network, example, draft, about)
        worst = _checked(network, student, kind.read(draft), target)
        if len(files) > 1:  # or a network might be left beside another's weights
            target.unlink(missing_ok=True)
        for file in files:
            Path(folder, file.name).replace(file)
    return worst


def _layout(name: str) -> Layout:
    return "nhwc" if name == "nhwc" else "nchw"


def smooth_crops(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Random crops ``(count, 3, *size)`` uint8 in which colours change slowly."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, size[0] // 16, size[1] // 16), generator=generator)
    grown = F.interpolate(coarse, size, mode="bicubic", align_corners=False)
    return (grown * 255).clamp(0, 255).to(torch.uint8)


def _checked(network: formats.Network, student: Student, run: formats.Runner, path: Path) -> float:
    worst = 0.0
    for batch in (1, 3):
        crops = network.example(smooth_crops(batch, student.config.input_size, seed=batch))
        with torch.inference_mode():
            answer = network(crops)
        expected = [p.numpy() for p in (answer if isinstance(answer, tuple) else (answer,))]
        found = run(crops.numpy())
        shapes = [part.shape for part in found]
        if shapes != [part.shape for part in expected]:
            raise ValueError(f"{path}: the file answers a batch of {batch} with shapes {shapes}")
        if len(expected) == 1:
            worst = max(worst, float(np.abs(found[0] - expected[0]).max()))
            continue
        clear = expected[1] > CLEAR_PEAK
        apart = np.linalg.norm(found[0] - expected[0], axis=2)[clear]
        worst = max(worst, float(apart.max(initial=0)))
        for values, right in zip(found[1:], expected[1:], strict=True):
            difference = float(np.abs(values - right).max())
            if not difference <= VALUES:
                raise ValueError(
                    f"{path}: the file's scores differ by {difference:.3g} from the student's"
                )
    limit = PIXELS if isinstance(network, KeypointNetwork) else VALUES
    if not worst <= limit:
        raise ValueError(
            f"{path}: the file's answers differ by {worst:.3g} from the student's, "
            f"at most {limit} is allowed"
        )
    return worst
