"""Where the error is: by joint, by size of the person, and person by person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdpose_core.data.coco import CocoImage, CocoPerson
from sdpose_core.evaluate.results import ImagePoses
from sdpose_core.vision.geometry import box_overlaps
from sdpose_core.vision.oks import joint_similarities

SIZES = (("small", 0.0, 32.0**2), ("medium", 32.0**2, 96.0**2), ("large", 96.0**2, np.inf))
"""COCO's names and bounds of a person's segment area in square pixels."""


@dataclass(frozen=True)
class PersonScore:
    """One annotated person and its matched pose (None: not found).

    ``similarity`` (K,) are the OKS terms of the joints, nan if unlabelled; ``distance`` (K,)
    the errors in units of the root of the segment's area; ``oks`` their mean, 0 if not found.
    ``visibility`` (K,) is None also if the source gives none. ``overlap`` is the intersection over
    union of both boxes.
    """

    image: CocoImage
    person: CocoPerson
    keypoints: NDArray[np.float32] | None
    keypoint_scores: NDArray[np.float32] | None
    similarity: NDArray[np.float64]
    distance: NDArray[np.float64]
    visibility: NDArray[np.float32] | None = None
    overlap: float = 0.0

    @property
    def oks(self) -> float:
        """Mean over labelled joints."""
        return float(np.nanmean(self.similarity))


def joint_similarity(
    keypoints: NDArray[np.float32], person: CocoPerson, sigmas: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """OKS terms and relative distances (K,) of a pose (K, 2); nan if unlabelled."""
    truth = person.keypoints[:, :2]
    [terms] = joint_similarities(keypoints[None], truth[None], np.array([person.area]), sigmas)
    distance = np.linalg.norm((keypoints - truth).astype(np.float64), axis=1)
    labelled = person.keypoints[:, 2] > 0
    return (
        np.where(labelled, terms, np.nan),
        np.where(labelled, distance / np.sqrt(person.area), np.nan),
    )


def score_people(found: Sequence[ImagePoses]) -> list[PersonScore]:
    """Match people with poses: by order if boxes were given, else greedily by best OKS."""
    scored = []
    for entry in found:
        people, poses = entry.image.people, entry.poses
        sigmas = entry.image.skeleton.sigmas
        pairs = {i: i for i in range(len(people))} if entry.given else _pair(entry)
        for index, person in enumerate(people):
            pose = pairs.get(index)
            if pose is None:
                labelled = person.keypoints[:, 2] > 0
                nothing = np.where(labelled, 0.0, np.nan)
                far = np.where(labelled, np.inf, np.nan)
                scored.append(PersonScore(entry.image, person, None, None, nothing, far))
                continue
            similarity, distance = joint_similarity(poses.keypoints[pose], person, sigmas)
            scored.append(
                PersonScore(
                    entry.image,
                    person,
                    poses.keypoints[pose],
                    poses.keypoint_scores[pose],
                    similarity,
                    distance,
                    None if poses.visibility is None else poses.visibility[pose],
                    float(box_overlaps(poses.boxes[[pose]], person.box[None])[0, 0]),
                )
            )
    return scored


def _pair(entry: ImagePoses) -> dict[int, int]:
    """Person index -> pose index, best OKS first, each used once, only where OKS > 0.1."""
    sigmas = entry.image.skeleton.sigmas
    values = [
        (float(np.nanmean(joint_similarity(pose, person, sigmas)[0])), i, j)
        for i, person in enumerate(entry.image.people)
        for j, pose in enumerate(entry.poses.keypoints)
    ]
    pairs: dict[int, int] = {}
    for value, i, j in sorted(values, reverse=True):
        if value > 0.1 and i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def by_joint(scored: Sequence[PersonScore]) -> dict[str, dict[str, float]]:
    """For each joint: number labelled, mean OKS term, share within 0.1 of root area."""
    similarity = np.stack([s.similarity for s in scored])
    distance = np.stack([s.distance for s in scored])
    table = {}
    for joint, name in enumerate(scored[0].image.skeleton.keypoints):
        known = ~np.isnan(similarity[:, joint])
        count = int(known.sum())
        table[name] = {
            "labelled": float(count),
            "oks": float(similarity[known, joint].mean()) if count else float("nan"),
            "within_0.1": float((distance[known, joint] < 0.1).mean()) if count else float("nan"),
        }
    return table


def by_size(scored: Sequence[PersonScore]) -> dict[str, dict[str, float]]:
    """For each person size: count, mean OKS, share with OKS > 0.5."""
    table = {}
    for name, low, high in SIZES:
        values = np.array([s.oks for s in scored if low <= s.person.area < high])
        table[name] = {
            "people": float(len(values)),
            "oks": float(values.mean()) if len(values) else float("nan"),
            "oks>0.5": float((values > 0.5).mean()) if len(values) else float("nan"),
        }
    return table
