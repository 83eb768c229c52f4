"""Missed people: by size, overlap and labelled joints; copies, repeats and false positives;
how true probabilities are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdpose_core.evaluate.breakdown import SIZES, PersonScore, joint_similarity
from sdpose_core.evaluate.coco_metrics import SliceAP
from sdpose_core.evaluate.results import ImagePoses
from sdpose_core.vision.geometry import box_overlaps, box_sides, shared_areas
from sdpose_core.vision.oks import oks_matrix

COPY: Final = 0.7
"""OKS to a better scored person from which somebody is nearly a copy."""
REPEAT: Final = 0.3
"""OKS to a labelled person from which a pose is of that person."""
LOOSE: Final = 0.7
"""Intersection over union with a person's box below which a pose's is loose, cut or merged."""
INSIDE: Final = 0.5
"""Share of a box inside an annotated person's from which it is about that person."""
OVERLAP: Final = 0.3
"""Intersection over union with another person's box from which people count as overlapped."""


@dataclass(frozen=True)
class Slice:
    """Some of the people. Shares are of them.

    Attributes:
        people: How many.
        ap: COCO's AP where only they count.
        missed: Without a pose (OKS above 0.1).
        misplaced: With one, but of an OKS below 0.5.
        loose: With one, but by a box that is loose, cut or merged (``LOOSE``).
        rank: AP that the same poses gain when ordered by their true OKS.
    """

    people: int
    ap: float
    missed: float
    misplaced: float
    loose: float
    rank: float


@dataclass(frozen=True)
class Reliability:
    """How well a probability of joints agrees with their labels.

    Attributes:
        auroc: Chance that it is higher for a labelled joint than for an unlabelled one.
        calibration_error: Mean distance from the truth over its ten equal bins, weighted by joints.
        bins: Number of joints, mean probability and mean truth of each bin that has joints.
    """

    auroc: float
    calibration_error: float
    bins: list[tuple[int, float, float]]


def slice_people(scored: Sequence[PersonScore]) -> dict[str, list[PersonScore]]:
    """The people of each slice by name; empty slices are left out."""
    slices: dict[str, list[PersonScore]] = {}
    overlapped = _overlapped(scored)
    counts = joint_counts(len(scored[0].image.skeleton))
    for person in scored:
        area, joints = person.person.area, int((person.person.keypoints[:, 2] > 0).sum())
        [size] = [name for name, low, high in SIZES if low <= area < high]
        [count] = [name for name, low, high in counts if low <= joints <= high]
        apart = "overlapped" if id(person) in overlapped else "apart"
        for name in ("all", size, apart, count):
            slices.setdefault(name, []).append(person)
    order = ["all", *(name for name, *_ in SIZES), "apart", "overlapped"]
    order += [name for name, *_ in counts]
    return {name: slices[name] for name in order if name in slices}


def joint_counts(keypoints: int) -> list[tuple[str, int, int]]:
    """Quarters of the numbers of labelled joints: name, lowest, highest."""
    bounds = sorted({keypoints * quarter // 4 for quarter in range(5)})
    pairs = itertools.pairwise(bounds)
    return [(f"{low + 1}-{high} joints", low + 1, high) for low, high in pairs]


def slice_table(
    slices: Mapping[str, Sequence[PersonScore]], precisions: Mapping[str, SliceAP]
) -> dict[str, Slice]:
    """Both kinds of numbers of each slice."""
    table = {}
    for name, people in slices.items():
        oks = np.array([one.oks for one in people])
        found = np.array([one.keypoints is not None for one in people])
        precision = precisions.get(name, SliceAP(0.0, 0.0))
        table[name] = Slice(
            people=len(people),
            ap=precision.ap,
            missed=float((~found).mean()),
            misplaced=float((found & (oks < 0.5)).mean()),
            loose=float(np.mean([one.overlap < LOOSE for one in people] & found)),
            rank=precision.sorted - precision.ap,
        )
    return table


def _overlapped(scored: Sequence[PersonScore]) -> set[int]:
    """``id`` of those whose box overlaps another labelled person's."""
    images: dict[int, list[PersonScore]] = {}
    for person in scored:
        images.setdefault(person.image.image_id, []).append(person)
    found: set[int] = set()
    for people in images.values():
        boxes = np.stack([one.person.box for one in people])
        overlaps = box_overlaps(boxes, boxes)
        np.fill_diagonal(overlaps, 0)
        found.update(
            id(one)
            for one, most in zip(people, overlaps.max(axis=1), strict=True)
            if most > OVERLAP
        )
    return found


def copies(found: Sequence[ImagePoses]) -> float:
    """Share of the people whose pose is nearly that of a better scored one (``COPY``)."""
    count = total = 0
    for entry in found:
        poses = entry.poses
        total += len(poses)
        if len(poses) < 2:
            continue
        order = np.argsort(-poses.scores, kind="stable")
        points = poses.keypoints[order].astype(np.float64)
        sides = (poses.boxes[order, 2:] - poses.boxes[order, :2]).astype(np.float64)
        areas = sides.prod(axis=1)
        similar = np.tril(oks_matrix(points, areas, points, areas, poses.skeleton.sigmas), -1)
        count += int((similar.max(axis=1, initial=0) > COPY).sum())
    return count / total if total else 0.0


def repeats(found: Sequence[ImagePoses]) -> float:
    """Share of the poses of labelled people (``REPEAT``) that are not the only one of theirs."""
    count = total = 0
    for entry in found:
        people, poses = entry.image.people, entry.poses
        if not people or not len(poses):
            continue
        terms = [
            [joint_similarity(pose, one, poses.skeleton.sigmas)[0] for one in people]
            for pose in poses.keypoints
        ]
        similar = np.nanmean(terms, axis=2)
        owners = similar.argmax(axis=1)[similar.max(axis=1) > REPEAT]
        total += len(owners)
        count += len(owners) - len(np.unique(owners))
    return count / total if total else 0.0


def false_positives(found: Sequence[ImagePoses]) -> float:
    """Share of the people who are none: their boxes are ``INSIDE`` no annotated one, crowds and
    people without labelled joints included."""
    count = total = 0
    for entry in found:
        boxes = entry.poses.boxes
        total += len(boxes)
        known = [one.box for one in entry.image.people]
        people = np.array([*known, *entry.image.others], np.float32)
        if not len(boxes) or not len(people):
            count += len(boxes)
            continue
        inside = shared_areas(boxes, people).max(axis=1) / box_sides(boxes) ** 2
        count += int((inside < INSIDE).sum())
    return count / total if total else 0.0


def score_truth(scored: Sequence[PersonScore]) -> Reliability:
    """How true joint scores are: the OKS term of a labelled joint, 0 for an unlabelled one.

    nan if no person has a pose.
    """
    known = [one for one in scored if one.keypoint_scores is not None]
    scores = [one.keypoint_scores for one in known if one.keypoint_scores is not None]
    return _reliability(scores, [np.nan_to_num(one.similarity) for one in known], known)


def visibility_truth(scored: Sequence[PersonScore]) -> Reliability | None:
    """How true the visibility of joints is: 1 for a labelled joint, 0 for an unlabelled one.

    None if no person has a visibility.
    """
    known = [one for one in scored if one.visibility is not None]
    if not known:
        return None
    visibility = [one.visibility for one in known if one.visibility is not None]
    return _reliability(visibility, [~np.isnan(one.similarity) for one in known], known)


def _reliability(
    values: Sequence[NDArray[np.float32]],
    truth: Sequence[NDArray[np.floating] | NDArray[np.bool_]],
    known: Sequence[PersonScore],
) -> Reliability:
    if not known:
        return Reliability(float("nan"), float("nan"), [])
    probability, right = np.stack(values), np.stack(truth).astype(np.float64)
    labelled = ~np.isnan(np.stack([one.similarity for one in known]))
    places = np.minimum((probability * 10).astype(int), 9)
    bins = [
        (int(found.sum()), float(probability[found].mean()), float(right[found].mean()))
        for place in np.unique(places)
        for found in [places == place]
    ]
    error = sum(count * abs(mean - true) for count, mean, true in bins) / probability.size
    curve = area_under_curve(probability[labelled], probability[~labelled])
    return Reliability(curve, error, bins)


def area_under_curve(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """Chance that a positive value is above a negative one, ties half (Mann and Whitney, 1947)."""
    if not positive.size or not negative.size:
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    equal = np.searchsorted(ordered, positive, side="right") - below
    return float((below + equal / 2).mean() / negative.size)
