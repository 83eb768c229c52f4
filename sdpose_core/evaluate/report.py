"""A complete evaluation: metrics, intervals, breakdowns, and a file that holds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sdpose_core.data.coco import CocoImage
from sdpose_core.evaluate.breakdown import PersonScore, by_joint, by_size, score_people
from sdpose_core.evaluate.coco_metrics import coco_numbers
from sdpose_core.evaluate.results import PoseSource, coco_results, run
from sdpose_core.evaluate.slices import (
    Reliability,
    Slice,
    copies,
    false_positives,
    repeats,
    score_truth,
    slice_people,
    slice_table,
    visibility_truth,
)
from sdpose_core.files.whole_file import whole_file
from sdpose_core.types import Detections


@dataclass(frozen=True)
class Evaluation:
    """Results of one setting.

    ``interval`` is the 95 % interval of AP over images, ``halves`` AP of the images of even and of
    odd id, ``copies`` the share of people who are nearly a better scored one, ``repeats`` of second
    poses of labelled people, ``false_positives`` of people who are none, ``scores`` and
    ``visibility`` (None if there is none) how true these are of joints, ``slices`` where people are
    lost.
    """

    title: str
    images: int
    people: int
    coco: dict[str, float]
    interval: tuple[float, float] | None
    halves: tuple[float, float]
    copies: float
    repeats: float
    false_positives: float
    scores: Reliability
    visibility: Reliability | None
    mean_oks: float
    oks50: float
    joints: dict[str, dict[str, float]]
    sizes: dict[str, dict[str, float]]
    slices: dict[str, Slice]


def evaluate(
    title: str,
    images: Sequence[CocoImage],
    annotations: Path,
    source: PoseSource,
    *,
    given_boxes: bool,
    boxes: Mapping[int, Detections] | None = None,
    bootstrap: int = 1000,
    on_image: Callable[[int], None] | None = None,
) -> tuple[Evaluation, list[PersonScore]]:
    """Evaluate a source on a COCO set; also returns every person's score."""
    found = run(images, source, given_boxes=given_boxes, boxes=boxes, on_image=on_image)
    if not found:
        raise ValueError("no image to evaluate: the file lists none")
    scored = score_people(found)
    if not scored:
        raise ValueError("no person to evaluate: none has a labelled joint and a box in its image")
    slices = slice_people(scored)
    numbers = coco_numbers(
        annotations,
        coco_results(found),
        [entry.image.image_id for entry in found],
        found[0].image.skeleton,
        slices={
            name: {one.person.annotation_id for one in people} for name, people in slices.items()
        },
        bootstrap=bootstrap,
    )
    values = np.array([s.oks for s in scored])
    result = Evaluation(
        title=title,
        images=len(found),
        people=len(scored),
        coco=numbers.values,
        interval=numbers.interval,
        halves=numbers.halves,
        copies=copies(found),
        repeats=repeats(found),
        false_positives=false_positives(found),
        scores=score_truth(scored),
        visibility=visibility_truth(scored),
        mean_oks=float(values.mean()),
        oks50=float((values > 0.5).mean()),
        joints=by_joint(scored),
        sizes=by_size(scored),
        slices=slice_table(slices, numbers.slices),
    )
    return result, scored


def write_report(path: Path, results: Sequence[Evaluation]) -> None:
    """All settings as one JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
