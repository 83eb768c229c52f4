"""What passes between the pipeline and its queues."""

from __future__ import annotations

from dataclasses import dataclass

from sdpose_core.types import Floats


@dataclass(frozen=True, slots=True)
class PoseGroup:
    """Only crops with the same options may share a batch."""

    cycles: int
    flip_test: bool


@dataclass(frozen=True, slots=True)
class Posed:
    """The keypoints and scores of one image's people; the seconds are those of its batch."""

    keypoints: Floats
    scores: Floats
    pose_s: float
    keypoints_s: float
