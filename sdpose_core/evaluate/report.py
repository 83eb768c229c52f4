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
from sdpose_core.types import Detections


@dataclass(frozen=True)
class Evaluation:
    """Results of one setting; ``interval`` is the 95 % interval of AP over images."""

    title: str
    images: int
    people: int
    coco: dict[str, float]
    interval: tuple[float, float] | None
    mean_oks: float
    oks50: float
    joints: dict[str, dict[str, float]]
    sizes: dict[str, dict[str, float]]


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
        raise ValueError("no image to evaluate: none has people, or none is fully annotated")
    numbers = coco_numbers(
        annotations,
        coco_results(found),
        [entry.image.image_id for entry in found],
        bootstrap=bootstrap,
    )
    scored = score_people(found)
    values = np.array([s.oks for s in scored])
    result = Evaluation(
        title=title,
        images=len(found),
        people=len(scored),
        coco=numbers.values,
        interval=numbers.interval,
        mean_oks=float(values.mean()),
        oks50=float((values > 0.5).mean()),
        joints=by_joint(scored),
        sizes=by_size(scored),
    )
    return result, scored


def write_report(path: Path, results: Sequence[Evaluation]) -> None:
    """All settings as one JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
