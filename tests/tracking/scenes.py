"""Identities and smoothing on people made by arithmetic, where the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdpose_core.tracking import PeopleTracker, Smoothing, TrackingConfig
from sdpose_core.tracking.association import iou_distance, linear_assignment
from sdpose_core.tracking.smoothing import JointFilter
from sdpose_core.types import Floats
from tests.tracking.walkers import Frame, Walker, crossing, walk

Identify = Callable[[Frame], NDArray[np.int64]]
"""The ids of a frame's people, (N,); 0 for none yet."""
HEIGHT = 220.0
WALKING = 1.4 / 1.7
"""Body heights a second: 1.4 m/s at 1.7 m."""


class PlainIoU:
    """What most demos do: each person is the one whose last box overlaps most."""

    def __init__(self, patience: int = 60) -> None:
        self._patience = patience
        self._boxes: dict[int, tuple[Floats, int]] = {}
        self._frame = 0
        self._next = 1

    def __call__(self, frame: Frame) -> NDArray[np.int64]:
        self._frame += 1
        boxes, ids = frame.poses.boxes, np.zeros(len(frame.poses), np.int64)
        known = list(self._boxes)
        costs = iou_distance([self._boxes[one][0] for one in known], list(boxes))
        matches, _, _ = linear_assignment(costs, thresh=0.8)
        for row, column in matches:
            ids[column] = known[row]
        for index in np.flatnonzero(ids == 0):
            ids[index], self._next = self._next, self._next + 1
        self._boxes |= {int(one): (box, self._frame) for one, box in zip(ids, boxes, strict=True)}
        self._boxes = {
            one: (box, last)
            for one, (box, last) in self._boxes.items()
            if self._frame - last <= self._patience
        }
        return ids


def tracked_by(pose_weight: float) -> Callable[[], Identify]:
    """Makes trackers of ours with this share of the pose."""

    def make() -> Identify:
        tracker = PeopleTracker(TrackingConfig(smoothing=None, pose_weight=pose_weight))

        def identify(frame: Frame) -> NDArray[np.int64]:
            tracked = tracker.update(frame.poses, frame.time_s)
            assert tracked.ids is not None
            # Without smoothing the people are the same, in another order, but for the new.
            same = (tracked.boxes[None] == frame.poses.boxes[:, None]).all(axis=2)
            ids: NDArray[np.int64] = (same * tracked.ids[None]).sum(axis=1)
            return ids

        return identify

    return make


def switches(frames: Iterable[Frame], identify: Identify) -> int:
    """How often a person got another id than before."""
    count, last = 0, dict[int, int]()
    for frame in frames:
        for person, one in zip(frame.who.tolist(), identify(frame).tolist(), strict=True):
            count += one != 0 and last.get(person, one) != one
            if one:
                last[person] = one
    return count


def scene(seed: int, fps: float, noise: float) -> list[Frame]:
    """Three people who cross; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return list(walk(crossing(rng), rng, fps=fps, noise=noise))


@dataclass(frozen=True, slots=True)
class Steadiness:
    """Of one setting of the filter.

    Attributes:
        jitter_px: median change of a joint's error from one frame to the next.
        error_px: root mean square distance from the truth.
        lag_frames: how far behind the truth the joints are in walking direction.
    """

    jitter_px: float
    error_px: float
    lag_frames: float


def steadiness(
    smoothing: Smoothing | None, *, fps: float, noise_px: float, heights_per_s: float
) -> Steadiness:
    """Of a person 220 pixels high, over 5 seconds after the first."""
    rng = np.random.default_rng(0)
    speed = heights_per_s * HEIGHT
    walker = Walker(100.0, speed, HEIGHT, 400.0)
    steady = None if smoothing is None else JointFilter(smoothing)
    scores = np.full(17, 0.9, np.float32)
    errors = []
    for number in range(round(6 * fps)):
        truth = walker.joints(number / fps)
        seen = (truth + rng.normal(0, noise_px, truth.shape)).astype(np.float32)
        if steady is not None:
            seen = steady(seen, scores, 0.6 * HEIGHT, number / fps)
        errors.append(truth - seen)
    after = np.array(errors[round(fps) :])
    return Steadiness(
        float(np.median(np.linalg.norm(np.diff(after, axis=0), axis=2))),
        float(np.sqrt((after**2).sum(axis=2).mean())),
        float(after[..., 0].mean() / (speed / fps)) if speed else 0.0,
    )
