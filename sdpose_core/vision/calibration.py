"""From a heatmap's peak to a keypoint's score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdpose_core.types import Floats, Poses

KEYPOINT_THRESHOLD: Final = 0.2
"""Joints that score less do not count for their person, as in the published protocol."""


SURE_BOX: Final = 0.25
"""Score from which a detection needs no confirmation by its joints."""
SURE_JOINTS: Final = 0.25
"""Mean score of the joints above 0.2 that confirms a less certain detection: chosen on one half of
COCO val2017 so that people taller than 96 pixels are found as before copies went."""


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """A logistic curve over the logarithm of the peak (Platt scaling, 1999).

    ``score = 1 / (1 + exp(-(slope * ln(peak) + offset)))``: the chance that the keypoint is right,
    fitted on a development set. Without numbers the peak itself is the score, as in the published
    students: ``limited`` to 0..1 in answers, unchanged in the published evaluation, which ranks by
    it.
    """

    slope: float | None = None
    offset: float = 0.0
    limited: bool = True

    @classmethod
    def from_facts(cls, training: Mapping[str, Any], *, limited: bool = True) -> ScoreCalibration:
        """The value of ``score_calibration`` in a checkpoint's training facts."""
        numbers = training.get("score_calibration")
        if not numbers:
            return cls(limited=limited)
        return cls(float(numbers["slope"]), float(numbers["offset"]), limited)

    def __call__(self, peaks: Floats) -> Floats:
        """Scores of peaks, any shape; 0..1, except for uncalibrated peaks that are not limited."""
        if self.slope is None:
            return np.asarray(np.clip(peaks, 0, 1) if self.limited else peaks, np.float32)
        logits = self.slope * np.log(np.maximum(peaks, 1e-6)) + self.offset
        scores: Floats = np.where(peaks > 0, 1 / (1 + np.exp(-logits)), 0).astype(np.float32)
        return scores


def joint_means(scores: Floats, threshold: float = KEYPOINT_THRESHOLD) -> Floats:
    """Mean of the scores ``(N, K)`` above ``threshold``, 0 if there are none: ``(N,)``."""
    sure = scores > threshold
    total = np.where(sure, scores, 0).sum(axis=1)
    return np.asarray(total / np.maximum(1, sure.sum(axis=1)), np.float32)


def confirmed(poses: Poses) -> NDArray[np.bool_]:
    """Mask of confirmed people ``(N,)``: those the detector is sure of, or whose joints confirm it.

    The lower a detector's threshold, the more people and the more false positives it finds. Joints
    that fit together tell them apart: below ``SURE_BOX`` the mean of the joints that score above
    0.2 must reach ``SURE_JOINTS``. Joints of a better person do not count (``people.each_once``).
    """
    return (poses.scores >= SURE_BOX) | (joint_means(poses.keypoint_scores) >= SURE_JOINTS)
