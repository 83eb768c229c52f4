"""From boxes to people, each once: who is posed, and the last step of every answer, in NumPy.

A detector's boxes overlap, and a doubtful box over a sure person gets that person's joints. Here
joints beyond the image lose their scores and visibility, copies of a person become one, a joint
that two people claim is left to the better one, and people get their scores. Parameters were chosen
on COCO val2017 (decision 14).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdpose_core.types import Detections, Floats, Poses
from sdpose_core.vision.geometry import box_overlaps, box_sides, shared_areas
from sdpose_core.vision.oks import joint_similarities
from sdpose_core.vision.ranking import BOX, KEYPOINT_THRESHOLD, joint_means

PersonScores = Callable[[Poses], Floats]
"""Scores ``(N,)`` of people, whose ``scores`` are still those of their boxes."""

LOWEST_BOX: Final = 0.06
"""Detections that score less are ignored."""
FAINT_BOX: Final = 0.1
"""Detections that score less are posed only if they are ``LARGE`` and not ``NEAR`` a better one:
of the rest few are people, and each costs as much as a sure one."""
LARGE: Final = 48.0
"""Side of a box (root of its area), pixels."""
NEAR: Final = 0.5
"""Overlap (IoU) with a better box."""
SURE_BOX: Final = 0.25
"""Score from which a detection needs no confirmation by its joints."""
DOUBT: Final = 2.4
"""Mean score of joints for each unit of score that a detection lacks."""
CANDIDATES: Final = 2
"""Boxes that are posed for each person of a caller's maximum: some may be copies."""
LIKELY: Final = 0.3
"""A joint that scores this much is likely; a person without one is none."""
OUTSIDE: Final = 0.05
"""Factor of score and visibility of a joint beyond the image: it cannot be seen."""
SAME_PERSON: Final = 0.6
"""Poses more similar are of one person: OKS, each joint weighted by the lower of its two scores, as
guesses of hidden joints differ."""
SAME_JOINT: Final = 0.7
"""Joints more similar (OKS term) are one joint."""
SAME_PLACE: Final = 0.1
"""Joints of one person's poses that are less similar are no measurements of the same place."""
MANY: Final = 0.5
"""Share of its likely joints that a person has in common with a better one, and so loses."""
FEWEST: Final = 1
"""A person who lost joints and has fewer likely ones left is none: more (3) lost true people."""


def worth_posing(
    found: Detections, max_people: int | None = None, *, pixel: float = 1.0
) -> Detections:
    """The detections that get a pose, best first.

    Args:
        found: Boxes in pixels of the image that was searched.
        max_people: People that the caller asks for.
        pixel: Size of these pixels in those of the whole image.
    """
    best = found.select(LOWEST_BOX)
    small = box_sides(best.boxes) * pixel < LARGE
    near = np.tril(box_overlaps(best.boxes, best.boxes) > NEAR, -1).any(axis=1)
    left = (best.scores < FAINT_BOX) & (small | near)
    limit = None if max_people is None else CANDIDATES * max_people
    return Detections(best.boxes[~left], best.scores[~left]).select(limit=limit)


def people_of(
    poses: Poses,
    size: tuple[int, int],
    rank: PersonScores,
    *,
    given: bool = False,
    suppress: bool = True,
    min_score: float | None = None,
) -> Poses:
    """The people of one image with their scores, best first.

    Args:
        poses: One pose per box; ``scores`` are the boxes'.
        size: Width and height of the image in pixels.
        rank: Gives the people's scores.
        given: The boxes are the caller's: all stay, in their order.
        suppress: Copies of a better person go (``each_once``).
        min_score: All who reach this score stay; None: those with a likely joint whom the detector
            is sure of or whose joints confirm them.
    """
    poses = without_outside(poses, size)
    if given or not len(poses):
        return replace(poses, scores=rank(poses))
    if suppress:
        poses = each_once(poses.select(np.argsort(-rank(poses), kind="stable")))
    people = replace(poses, scores=rank(poses))
    if min_score is None:
        kept = confirmed(poses) & (poses.keypoint_scores >= LIKELY).any(axis=1)
    else:
        kept = people.scores >= min_score
    order = np.argsort(-people.scores, kind="stable")
    return people.select(order[kept[order]])


def confirmed(poses: Poses) -> NDArray[np.bool_]:
    """Mask of confirmed people ``(N,)``: those the detector is sure of, or whose joints confirm it.

    The lower a detector's threshold, the more people and the more false positives it finds. Joints
    that fit together tell them apart: the mean of those that score above 0.2 must reach 0.24 for a
    box of 0.15 and 0.46 for one of 0.06. Joints of a better person do not count (``each_once``).
    """
    return joint_means(poses.keypoint_scores) >= DOUBT * (np.float32(SURE_BOX) - poses.scores)


def without_outside(poses: Poses, size: tuple[int, int]) -> Poses:
    """Joints beyond the image of ``size`` (width, height) have next to no score and visibility."""
    limits = np.array(size, np.float32) - 0.5
    outside: NDArray[np.bool_] = np.any(
        (poses.keypoints < -0.5) | (poses.keypoints > limits), axis=2
    )
    if not outside.any():
        return poses

    def lowered(values: Floats) -> Floats:
        return np.where(outside, np.float32(OUTSIDE) * values, values)

    visibility = None if poses.visibility is None else lowered(poses.visibility)
    return replace(poses, keypoint_scores=lowered(poses.keypoint_scores), visibility=visibility)


def each_once(poses: Poses) -> Poses:
    """The people among poses, best first, whose ``scores`` are those of their boxes.

    Poses of one person become one: the best, with the mean of their joints, weighted by scores.
    Of two people who have many joints in common the worse loses these; so does one who is a
    doubtful detection, whatever is in common. Poses are compared only if their boxes touch, so
    that the cost of a crowd grows with its contacts.
    """
    better, worse = touching(poses.boxes)
    if not len(better):
        return poses
    similar = _similar(poses, better, worse)
    person = _persons(poses, better, worse, similar)
    best = person == np.arange(len(poses))
    joined = _merged(poses, person, better, worse, similar)
    both = best[better] & best[worse]
    joined, left = _without_foreign(joined, better[both], worse[both], similar[both])
    return joined.select(best & left)


def persons(poses: Poses) -> NDArray[np.bool_]:
    """Mask ``(N,)`` of poses, in any order, that are no copy of a better scored one."""
    order = np.argsort(-poses.scores, kind="stable")
    ordered = poses.select(order)
    better, worse = touching(ordered.boxes)
    person = _persons(ordered, better, worse, _similar(ordered, better, worse))
    kept = np.zeros(len(poses), bool)
    kept[order] = person == np.arange(len(poses))
    return kept


def touching(boxes: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the first and second box of all pairs that overlap, the first before the second,
    ordered by the second."""
    second, first = np.nonzero(np.tril(shared_areas(boxes, boxes) > 0, -1))
    return first, second


def _similar(
    poses: Poses, firsts: NDArray[np.intp], seconds: NDArray[np.intp]
) -> NDArray[np.float64]:
    """OKS terms ``(M, K)`` of pairs, with the mean area of their boxes."""
    areas = (poses.boxes[:, 2:] - poses.boxes[:, :2]).astype(np.float64).prod(axis=1)
    points = poses.keypoints.astype(np.float64)
    return joint_similarities(
        points[firsts],
        points[seconds],
        (areas[firsts] + areas[seconds]) / 2,
        poses.skeleton.sigmas,
    )


def _persons(
    poses: Poses,
    better: NDArray[np.intp],
    worse: NDArray[np.intp],
    similar: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Index of the best pose of each pose's person: greedy suppression, the best first."""
    scores = poses.keypoint_scores.astype(np.float64) + 1e-4
    weights = np.minimum(scores[better], scores[worse])
    same = np.average(similar, axis=1, weights=weights) > SAME_PERSON
    person = np.arange(len(poses))
    for i, j in zip(better[same].tolist(), worse[same].tolist(), strict=True):
        if person[i] == i and person[j] == j:
            person[j] = i
    return person


def _merged(
    poses: Poses,
    person: NDArray[np.intp],
    better: NDArray[np.intp],
    worse: NDArray[np.intp],
    similar: NDArray[np.float64],
) -> Poses:
    copies = person[worse] == better
    if not copies.any():
        return poses
    i, j = better[copies], worse[copies]
    weights = poses.keypoint_scores * poses.scores[:, None] ** np.float32(BOX) + np.float32(1e-6)
    total = weights[..., None] * poses.keypoints
    add = np.where(similar[copies] > SAME_PLACE, weights[j], 0).astype(np.float32)
    sums = weights.copy()
    np.add.at(total, i, add[..., None] * poses.keypoints[j])
    np.add.at(sums, i, add)
    return replace(poses, keypoints=total / sums[..., None])


def _without_foreign(
    poses: Poses,
    better: NDArray[np.intp],
    worse: NDArray[np.intp],
    similar: NDArray[np.float64],
) -> tuple[Poses, NDArray[np.bool_]]:
    """The poses, of joints that a better person has without their scores; and who remains (N,).

    Their visibility stays: two thirds of such joints of COCO val2017's people are labelled.
    """
    scores = poses.keypoint_scores
    likely = scores >= LIKELY
    had = likely.sum(axis=1)
    common = similar > SAME_JOINT
    claimed = (common & likely[worse] & (scores[better] >= scores[worse])).sum(axis=1)
    doubtful = poses.scores[worse] < SURE_BOX
    loses = (claimed >= MANY * np.maximum(had[worse], 1)) | doubtful
    foreign = np.zeros(scores.shape, bool)
    np.logical_or.at(
        foreign, worse, common & loses[:, None] & (scores[better] >= KEYPOINT_THRESHOLD)
    )
    kept_scores = np.where(foreign, np.float32(0), scores)
    left = (kept_scores >= LIKELY).sum(axis=1)
    return replace(poses, keypoint_scores=kept_scores), left >= np.minimum(FEWEST, had)
