"""A person's score: the OKS that the pose can be expected to reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdpose_core.types import Floats, Poses, ViewGeometry
from sdpose_core.vision.geometry import regions_from_boxes

KEYPOINT_THRESHOLD: Final = 0.2
"""Joints that score less do not count for their person, as in the published protocol."""
SMALLEST: Final = 0.01
BOX: Final = 0.3
"""Power of the box's score beside those of the joints, which hold most of its information."""


def feature_count(keypoints: int) -> int:
    """Length of a person's ``pose_features``."""
    return 3 * keypoints + 6


def pose_features(places: Floats, scores: Floats) -> Floats:
    """Features of a person's score, ``(N, feature_count(K))``.

    The joint scores, their logarithms, the scores in order of size; mean and spread of the joints,
    weighted by their scores, and their extent.

    Args:
        places: ``(N, K, 2)`` joints in units of the view's width and height, 0 in its middle.
        scores: ``(N, K)`` of the joints.
    """
    weights = scores[..., None] + SMALLEST
    total = weights.sum(axis=1)
    middle = (places * weights).sum(axis=1) / total
    spread = np.sqrt(((places - middle[:, None]) ** 2 * weights).sum(axis=1) / total)
    parts = [
        scores,
        np.log(scores + SMALLEST),
        np.sort(scores, axis=1),
        middle,
        spread,
        places.max(axis=1) - places.min(axis=1),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def joint_means(scores: Floats, threshold: float = KEYPOINT_THRESHOLD) -> Floats:
    """Mean of the scores ``(N, K)`` above ``threshold``, 0 if there are none: ``(N,)``."""
    sure = scores > threshold
    total = np.where(sure, scores, 0).sum(axis=1)
    return np.asarray(total / np.maximum(1, sure.sum(axis=1)), np.float32)


def mean_scores(poses: Poses) -> Floats:
    """Scores ``(N,)`` of people as published: the box's times the mean of joints above 0.2."""
    return np.asarray(poses.scores * joint_means(poses.keypoint_scores), np.float32)


class PersonRanking:
    """Scores of people by a perceptron on their joints, fitted to a student's.

    The score is that of the box to the power ``BOX`` times the geometric mean of the expected OKS
    and of the joints' mean score: the perceptron knows how joints go together, the mean holds for
    people unlike those that it was fitted on.

    Args:
        view: The student's, which the places of joints refer to.
        weights: ``mean``, ``scale`` and the two layers of ``model.heads.PersonHead``, by its names.
    """

    def __init__(self, view: ViewGeometry, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._view = view
        self._mean, self._scale = weights["mean"], weights["scale"]
        self._first = weights["layers.0.weight"].T.copy(), weights["layers.0.bias"]
        self._last = weights["layers.2.weight"][0], weights["layers.2.bias"][0]

    def __call__(self, poses: Poses) -> Floats:
        """Scores ``(N,)`` in 0..1 of people whose ``scores`` are those of their boxes."""
        if not len(poses):
            return poses.scores
        return np.asarray(
            poses.scores ** np.float32(BOX)
            * np.sqrt(self.expected(poses) * joint_means(poses.keypoint_scores)),
            np.float32,
        )

    def expected(self, poses: Poses) -> Floats:
        """Expected OKS ``(N,)`` of people, should their boxes be right."""
        regions = regions_from_boxes(poses.boxes, self._view)
        places = (poses.keypoints - regions.centres[:, None]) / regions.sizes[:, None]
        features = (pose_features(places, poses.keypoint_scores) - self._mean) / self._scale
        hidden = np.maximum(features @ self._first[0] + self._first[1], 0)
        logits = hidden @ self._last[0] + self._last[1]
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
