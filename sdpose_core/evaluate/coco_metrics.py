"""COCO's keypoint metrics from pycocotools, and their uncertainty by bootstrap over images."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpose_core.data.coco_file import PERSON, read_coco

NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
"""The ten metrics of ``COCOeval.summarize`` for keypoints, in its order."""


@dataclass(frozen=True)
class CocoNumbers:
    """The ten metrics by name (-1 where undefined in COCO) and the 95 % interval of AP."""

    values: dict[str, float]
    interval: tuple[float, float] | None


def coco_numbers(
    annotations: Path,
    results: Sequence[dict[str, Any]],
    image_ids: Sequence[int],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> CocoNumbers:
    """Evaluate COCO keypoint results on the named images.

    ``bootstrap``: number of resamplings of the images for the interval of AP, 0 = none. Raises
    ``ValueError`` as ``read_coco`` does, by which ids and categories are to be understood.
    """
    from pycocotools.cocoeval import COCOeval

    if not results:
        return CocoNumbers(dict.fromkeys(NAMES, 0.0), None)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = read_coco(annotations).truth()
        run = COCOeval(truth, truth.loadRes(list(results)), "keypoints")
        run.params.imgIds = sorted(image_ids)
        run.params.catIds = [PERSON]
        run.evaluate()
        run.accumulate()
        run.summarize()
    values = {name: float(v) for name, v in zip(NAMES, run.stats, strict=True)}
    interval = None
    if bootstrap > 0:
        images = image_matches(run)
        rng = np.random.default_rng(seed)
        draws = [
            average_precision([images[i] for i in rng.integers(0, len(images), len(images))])
            for _ in range(bootstrap)
        ]
        known = np.array([d for d in draws if d >= 0])
        if len(known):
            interval = (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975)))
    return CocoNumbers(values, interval)


@dataclass(frozen=True)
class ImageMatches:
    """What pycocotools matched in one image: ``scores`` (D,), ``hits`` and ``ignored`` (T, D) at T
    thresholds, and ``people``, the number that count."""

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    people: int


def image_matches(run: Any) -> list[ImageMatches]:
    """Per image at area "all", from an evaluated ``COCOeval``; empty images are included."""
    count = len(run.params.imgIds)
    thresholds = len(run.params.iouThrs)
    matches = []
    for entry in run.evalImgs[:count]:
        if entry is None:
            empty = np.zeros((thresholds, 0), bool)
            matches.append(ImageMatches(np.zeros(0), empty, empty, 0))
            continue
        matches.append(
            ImageMatches(
                scores=np.asarray(entry["dtScores"], np.float64),
                hits=np.asarray(entry["dtMatches"]).astype(bool),
                ignored=np.asarray(entry["dtIgnore"]).astype(bool),
                people=int((np.asarray(entry["gtIgnore"]) == 0).sum()),
            )
        )
    return matches


def average_precision(images: Sequence[ImageMatches]) -> float:
    """AP over COCO's thresholds and 101 recall points, as in ``COCOeval.accumulate``; -1 without
    people."""
    people = sum(image.people for image in images)
    if people == 0:
        return -1.0
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(-scores, kind="mergesort")
    hits = np.concatenate([image.hits for image in images], axis=1)[:, order]
    ignored = np.concatenate([image.ignored for image in images], axis=1)[:, order]
    true = np.cumsum(hits & ~ignored, axis=1).astype(float)
    false = np.cumsum(~hits & ~ignored, axis=1).astype(float)
    recall = true / people
    precision = true / np.maximum(true + false, np.spacing(1))
    # Precision at a recall is the best one at that recall or a higher one.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    points = np.linspace(0, 1, 101)
    total = 0.0
    for row_recall, row_precision in zip(recall, precision, strict=True):
        at = np.searchsorted(row_recall, points, side="left")
        reached = at < len(row_recall)
        total += float(row_precision[at[reached]].sum()) / len(points)
    return total / len(recall)
