"""COCO's keypoint metrics from pycocotools, of the set, its halves and slices, with an interval."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpose_core.data.coco_file import PERSON, read_coco
from sdpose_core.skeleton import COCO17, Skeleton

NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
"""The ten metrics of ``COCOeval.summarize`` for keypoints, in its order."""


@dataclass(frozen=True)
class SliceAP:
    """AP where only people of one slice count; ``sorted`` is that of the same poses, ordered by
    their true similarity: what is left to gain by better scores alone."""

    ap: float
    sorted: float


@dataclass(frozen=True)
class CocoNumbers:
    """The ten metrics by name (-1 if undefined in COCO) and the 95 % interval of AP.

    ``halves``: AP of the images of even and of odd id; -1 if there is none. ``slices``: by name.
    """

    values: dict[str, float]
    interval: tuple[float, float] | None
    halves: tuple[float, float] = (-1.0, -1.0)
    slices: dict[str, SliceAP] = field(default_factory=dict)


def coco_numbers(
    annotations: Path,
    results: Sequence[dict[str, Any]],
    image_ids: Sequence[int],
    skeleton: Skeleton = COCO17,
    *,
    slices: Mapping[str, Collection[str]] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> CocoNumbers:
    """Evaluate COCO keypoint results on the named images.

    ``slices``: the annotation ids, as the file has them, of the people that count in each;
    ``bootstrap``: number of resamplings of the images for the interval of AP, 0 = none. Raises
    ``ValueError`` as ``read_coco`` does, which reads ids and categories.
    """
    from pycocotools.cocoeval import COCOeval

    if not results:
        return CocoNumbers(dict.fromkeys(NAMES, 0.0), None)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = read_coco(annotations, skeleton).truth()
        run = COCOeval(truth, truth.loadRes(list(results)), "keypoints")
        run.params.imgIds = sorted(image_ids)
        run.params.catIds = [PERSON]
        run.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        run.evaluate()
        run.accumulate()
        run.summarize()
    values = {name: float(v) for name, v in zip(NAMES, run.stats, strict=True)}
    images = image_matches(run)
    interval = None
    if bootstrap > 0:
        rng = np.random.default_rng(seed)
        draws = [
            average_precision([images[i] for i in rng.integers(0, len(images), len(images))])
            for _ in range(bootstrap)
        ]
        known = np.array([d for d in draws if d >= 0])
        if len(known):
            interval = (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975)))
    numbered = list(zip(run.params.imgIds, images, strict=True))
    even, odd = ([found for one, found in numbered if one % 2 == half] for half in (0, 1))
    return CocoNumbers(
        values,
        interval,
        (average_precision(even), average_precision(odd)),
        {name: _slice(run, set(people)) for name, people in (slices or {}).items()},
    )


def _slice(run: Any, people: set[str]) -> SliceAP:
    """The others are ignored, as people outside a range of areas are."""
    area, most = run.params.areaRng[0], run.params.maxDets[-1]
    kept = {}
    for entries in run._gts.values():
        for entry in entries:
            kept[entry["id"]] = entry["ignore"]
            entry["ignore"] = entry["ignore"] or entry["said_id"] not in people
    keys = [(one, PERSON) for one in run.params.imgIds]
    thresholds = len(run.params.iouThrs)
    matches = [_matches(run.evaluateImg(*key, area, most), thresholds) for key in keys]
    similar = [
        _best(run.ious[key], run._gts[key], len(found.scores))
        for key, found in zip(keys, matches, strict=True)
    ]
    for entries in run._gts.values():
        for entry in entries:
            entry["ignore"] = kept[entry["id"]]
    true = [replace(found, scores=oks) for found, oks in zip(matches, similar, strict=True)]
    return SliceAP(average_precision(matches), average_precision(true))


def _best(similarity: Any, people: Any, poses: int) -> NDArray[np.float64]:
    """The OKS (D,) of each pose to the most similar person that counts."""
    counted = [not one["ignore"] for one in people]
    if not any(counted) or not poses:
        return np.zeros(poses)
    best: NDArray[np.float64] = np.asarray(similarity)[:, counted].max(axis=1)
    return best


@dataclass(frozen=True)
class ImageMatches:
    """Matches of pycocotools in one image: ``scores`` (D,), ``hits`` and ``ignored`` (T, D) at T
    thresholds, and ``people``, the number that count."""

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    people: int


def image_matches(run: Any) -> list[ImageMatches]:
    """Per image at area "all", from an evaluated ``COCOeval``; empty images are included."""
    thresholds = len(run.params.iouThrs)
    return [_matches(entry, thresholds) for entry in run.evalImgs[: len(run.params.imgIds)]]


def _matches(entry: Any, thresholds: int) -> ImageMatches:
    if entry is None:
        empty = np.zeros((thresholds, 0), bool)
        return ImageMatches(np.zeros(0), empty, empty, 0)
    return ImageMatches(
        scores=np.asarray(entry["dtScores"], np.float64),
        hits=np.asarray(entry["dtMatches"]).astype(bool),
        ignored=np.asarray(entry["dtIgnore"]).astype(bool),
        people=int((np.asarray(entry["gtIgnore"]) == 0).sum()),
    )


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
