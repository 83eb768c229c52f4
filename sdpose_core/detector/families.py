"""Detectors of other projects: how each family's input is prepared and its output is read.

A family is recognised by the inputs and outputs of its exported file, see docs/detectors.md. The
layouts are those of ultralytics' exporter (``output0``), of mmdeploy (``dets`` and ``labels``), and
of the raw RTMDet heads in OpenMMLab's RTMPose project.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sdpose_core.types import Floats

Arrays: TypeAlias = Sequence[NDArray[Any]]
Shape: TypeAlias = tuple[int | None, ...]
"""The sides of one input or output; None is a side that varies."""
Read: TypeAlias = Callable[
    [Arrays, tuple[int, int], Sequence[int], float], Iterator[tuple[Floats, Floats]]
]
"""``read(outputs, canvas, classes, min_score)``: for each image of the batch boxes ``(n, 4)`` xyxy
in pixels of the canvas (height, width), and scores ``(n,)``, of those above ``min_score``."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How an image becomes a network's input.

    Attributes:
        mean, scale: ``(pixel - mean) / scale`` is the input, in the order of its channels.
        bgr: Whether the channels are BGR; else RGB.
        centred: Whether the image is in the middle of its canvas; else at the top left.
    """

    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    bgr: bool
    centred: bool


RTMDET_LOWEST: Final = 0.25
"""RTMDet gives four times as many boxes from 0.1 to 0.25 as above, few of them people."""
_YOLO: Final = Preparation((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), bgr=False, centred=True)
_RTMDET: Final = Preparation(
    (103.53, 116.28, 123.675), (57.375, 57.12, 58.395), bgr=True, centred=False
)


@dataclass(frozen=True, slots=True)
class Family:
    """One layout of inputs and outputs.

    Attributes:
        read: Boxes and scores from the outputs.
        image: How the input is prepared.
        max_overlap: Of non-maximum suppression; None if the network has suppressed already.
        classes: How many there are; None if the outputs do not say.
        lowest: Boxes that score less are not worth a look, whatever the caller's threshold.
    """

    read: Read
    image: Preparation
    max_overlap: float | None = None
    classes: int | None = None
    lowest: float = 0.0


def family_of(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Family | None:
    """The family of a file with these shapes; None if it is none that is known.

    The shape of an output is empty if the file does not state it.
    """
    if (
        len(inputs) != 1
        or len(inputs[0]) != 4
        or inputs[0][1] != 3
        or inputs[0][0] not in (None, 1)
    ):
        return None
    ranks = [len(shape) for shape in outputs]
    last = outputs[0][-1] if outputs and outputs[0] else None
    if ranks == [3] and last == 6:
        return Family(_read_yolo_end_to_end, _YOLO)
    if ranks == [3]:
        rows = outputs[0][1]
        if rows is None or rows < 5 or (last is not None and last <= rows):
            return None
        return Family(_read_yolo, _YOLO, max_overlap=0.7, classes=rows - 4)
    if sorted(ranks) == [2, 3] and outputs[ranks.index(3)][-1] == 5:
        return Family(_read_mmdeploy, _RTMDET, lowest=RTMDET_LOWEST)
    same = len({shape[-1] for shape in outputs}) == 1 if all(outputs) else False
    if len(ranks) > 1 and set(ranks) == {4} and same and last is not None and last >= 5:
        if not _are_levels(inputs[0], outputs):
            return None
        return Family(
            _read_rtmdet, _RTMDET, max_overlap=0.6, classes=last - 4, lowest=RTMDET_LOWEST
        )
    return None


def _are_levels(image: Shape, outputs: Sequence[Shape]) -> bool:
    """Whether the outputs are grids of different strides, as far as the file gives sizes."""
    grids = [shape[1:3] for shape in outputs]
    known = [side for side in (*image[2:], *(one for grid in grids for one in grid)) if side]
    if len(known) < 2 + 2 * len(grids):
        return True
    whole = all(
        size % cells == 0
        for grid in grids
        for size, cells in zip(image[2:], grid, strict=True)
        if size and cells
    )
    return whole and len(set(grids)) == len(grids)


def _read_yolo(
    outputs: Arrays, canvas: tuple[int, int], classes: Sequence[int], min_score: float
) -> Iterator[tuple[Floats, Floats]]:
    """``(B, 4 + classes, anchors)``: centre, size, and a score of each class."""
    for rows in outputs[0]:
        scores = rows[[4 + number for number in classes]].max(axis=0)
        kept = scores > min_score
        centres, halves = rows[:2, kept].T, rows[2:4, kept].T / 2
        yield np.concatenate([centres - halves, centres + halves], axis=1), scores[kept]


def _read_yolo_end_to_end(
    outputs: Arrays, canvas: tuple[int, int], classes: Sequence[int], min_score: float
) -> Iterator[tuple[Floats, Floats]]:
    """``(B, N, 6)``: corners, score, class."""
    for rows in outputs[0]:
        kept = (rows[:, 4] > min_score) & np.isin(rows[:, 5], classes)
        yield rows[kept, :4], rows[kept, 4]


def _read_mmdeploy(
    outputs: Arrays, canvas: tuple[int, int], classes: Sequence[int], min_score: float
) -> Iterator[tuple[Floats, Floats]]:
    """``dets`` ``(B, N, 5)``: corners and score; ``labels`` ``(B, N)``: the class."""
    dets, labels = sorted(outputs, key=np.ndim, reverse=True)
    for rows, kinds in zip(dets, labels, strict=True):
        kept = (rows[:, 4] > min_score) & np.isin(kinds, classes)
        yield rows[kept, :4], rows[kept, 4]


def _read_rtmdet(
    outputs: Arrays, canvas: tuple[int, int], classes: Sequence[int], min_score: float
) -> Iterator[tuple[Floats, Floats]]:
    """Boxes of outputs ``(B, H, W, classes + 4)``, one per stride.

    They hold scores before the sigmoid, then distances in pixels from ``(column * stride, row *
    stride)`` to the left, top, right and bottom side.
    """
    lowest = math.log(min_score / (1 - min_score))
    for position in range(len(outputs[0])):
        boxes, scores = [], []
        for level in outputs:
            cells = level[position]
            logits = cells[..., list(classes)].max(axis=-1)
            row, column = np.nonzero(logits > lowest)
            stride = np.array([canvas[1] / cells.shape[1], canvas[0] / cells.shape[0]], np.float32)
            points = np.stack([column, row], axis=1).astype(np.float32) * stride
            sides = cells[row, column, -4:]
            boxes.append(np.concatenate([points - sides[:, :2], points + sides[:, 2:]], axis=1))
            scores.append(1 / (1 + np.exp(-logits[row, column])))
        yield np.concatenate(boxes), np.concatenate(scores)
