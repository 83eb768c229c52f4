"""People between two detections: their boxes follow their joints."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

import numpy as np

from sdpose_core.tracking.pace import Pace
from sdpose_core.types import Floats, Poses
from sdpose_core.vision.people import persons
from sdpose_core.vision.ranking import joint_means

CERTAIN: Final = 0.3
"""Joints from this score on locate a person."""
GROWN: Final = 1.25
"""A box by joints is the box around them, so much larger, as in MMDeploy's PoseTracker."""
FEWEST: Final = 6
"""With fewer certain joints a person keeps the old box."""
STILL_THERE: Final = 0.3
"""Mean score of the joints from which a person that is only followed counts as seen."""
STILL_AS_GOOD: Final = 0.7
"""Or this share of the mean at the detection: some people show few joints from the start."""


class Following:
    """People followed in one stream. Times are seconds of one clock.

    Args:
        every: detect in every so many frames; `auto`: as `Pace` has it.
        suppress: of people whom two boxes follow only one stays.
    """

    def __init__(self, every: int | Literal["auto"], *, suppress: bool = True) -> None:
        self._pace = Pace(every)
        self._suppress = suppress
        self._last: Poses | None = None
        self._size = (0, 0)
        self._needed: Floats = np.zeros(0, np.float32)

    def boxes(self, now_s: float) -> Floats | None:
        """Where to look in the frame of this moment, (N, 4) xyxy; None: detect people."""
        self._pace.arrived(now_s)
        if self._last is None or not len(self._last) or self._pace.due():
            return None
        boxes = boxes_by_joints(self._last)
        inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < self._size).all(axis=1)
        return clipped(boxes, self._size) if inside.all() else None

    def detected(self, poses: Poses, size: tuple[int, int], total_ms: float) -> None:
        """People as detected, or as the client has them; ``size`` is the image's (w, h) pixels."""
        self._last, self._size = poses, size
        self._needed = np.minimum(STILL_THERE, STILL_AS_GOOD * joint_means(poses.keypoint_scores))
        self._pace.detected(total_ms)

    def followed(self, poses: Poses, size: tuple[int, int], total_ms: float) -> Poses | None:
        """Those found in ``boxes`` who are still there, at most as sure as before.

        None if the image has another size than the last: the boxes meant nothing.
        """
        if size != self._size or self._last is None:
            return None
        poses = replace(poses, scores=np.minimum(poses.scores, self._last.scores))
        kept = joint_means(poses.keypoint_scores) >= self._needed
        if self._suppress:
            kept &= persons(poses)
        self._needed = self._needed[kept]
        self._pace.followed(total_ms, lost=not kept.all())
        self._last = poses.select(kept)
        return self._last


def boxes_by_joints(poses: Poses) -> Floats:
    """Where the same people are expected in the next frame, ``(N, 4)`` xyxy pixels."""
    boxes = poses.boxes.copy()
    for index, (points, scores) in enumerate(
        zip(poses.keypoints, poses.keypoint_scores, strict=True)
    ):
        certain = points[scores >= CERTAIN]
        if len(certain) < FEWEST:
            continue
        low, high = certain.min(axis=0), certain.max(axis=0)
        centre, half = (low + high) / 2, (high - low) / 2 * GROWN
        if half.min() > 1:
            boxes[index] = np.concatenate([centre - half, centre + half])
    return boxes


def clipped(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Boxes ``(N, 4)`` xyxy without what lies beyond an image of ``size`` (width, height)."""
    limits = np.array([*size, *size], np.float32)
    return np.clip(boxes, 0, limits)
