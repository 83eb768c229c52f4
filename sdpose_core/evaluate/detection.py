"""How well a person detector finds people, measured on a COCO annotation file.

Images marked ``"fully_annotated": false`` are left out.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdpose_core.data.coco_file import read_coco
from sdpose_core.detector import LoadedDetector
from sdpose_core.types import Detections, Image
from sdpose_core.vision.geometry import box_overlaps

TALL = 96.0
SERVING_SCORE = 0.25


@dataclass(frozen=True, slots=True)
class Annotated:
    """Fully annotated images: pixels by image id, and pycocotools' ``COCO``."""

    pictures: dict[int, Image]
    truth: Any


def read_annotated(annotations: Path, images: Path) -> Annotated:
    """The fully annotated images of a COCO person file.

    Raises:
        ValueError: as ``read_coco``, or an image cannot be read.
    """
    truth = read_coco(annotations).truth()
    pictures = {}
    for number, entry in sorted(truth.imgs.items()):
        if not entry.get("fully_annotated", True):
            continue
        stored = cv2.imread(str(images / entry["file_name"]))
        if stored is None:
            raise ValueError(f"{images / entry['file_name']}: cannot be read")
        pictures[number] = np.asarray(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB), np.uint8)
    return Annotated(pictures, truth)


COCO_OVERLAPS = tuple(0.5 + 0.05 * step for step in range(10))
"""The overlaps that COCO's AP50:95 averages over."""


@dataclass(frozen=True, slots=True)
class PeopleNumbers:
    """Person detection in COCO's terms, 0..1: AP at overlap 0.5, mean AP over 0.5 to 0.95, and
    the share of people taller than 96 pixels found at the serving threshold."""

    ap50: float
    ap: float
    tall_recall: float


def measure_people(detector: LoadedDetector, annotated: Annotated) -> PeopleNumbers:
    """Measure a detector that was loaded with a low ``min_score`` (0.001)."""
    found = find_people(detector, annotated)
    return PeopleNumbers(
        ap50=average_precision(found, annotated),
        ap=average_precision(found, annotated, COCO_OVERLAPS),
        tall_recall=tall_recall(found, annotated),
    )


def average_precision(
    found: dict[int, Detections], annotated: Annotated, overlaps: Sequence[float] = (0.5,)
) -> float:
    """COCO AP over all sizes, 0..1, mean over ``overlaps``; crowds are ignored, as in COCO."""
    from pycocotools.cocoeval import COCOeval

    rows = [
        {
            "image_id": number,
            "category_id": 1,
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": float(score),
        }
        for number, people in found.items()
        for (x1, y1, x2, y2), score in zip(people.boxes, people.scores, strict=True)
    ]
    if not rows:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(annotated.truth, annotated.truth.loadRes(rows), "bbox")
        run.params.imgIds = list(annotated.pictures)
        run.params.catIds = [1]
        run.params.iouThrs = np.array(overlaps)
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, 0, 0, -1]
    return float(precision[precision > -1].mean())


def tall_recall(found: dict[int, Detections], annotated: Annotated) -> float:
    """Share of the people taller than 96 pixels that have a box of at least half overlap, 0..1."""
    hit = total = 0
    for number, people in found.items():
        boxes = people.select(min_score=SERVING_SCORE).boxes
        for entry in annotated.truth.imgToAnns[number]:
            x, y, width, height = entry["bbox"]
            if entry.get("iscrowd") or entry["category_id"] != 1 or height <= TALL:
                continue
            total += 1
            person = np.array([[x, y, x + width, y + height]], np.float32)
            hit += bool((box_overlaps(boxes, person) >= 0.5).any())
    return hit / total if total else 0.0


def find_people(detector: LoadedDetector, annotated: Annotated) -> dict[int, Detections]:
    """Detections by image id, one image at a time."""
    return {number: detector.detect([image])[0] for number, image in annotated.pictures.items()}
