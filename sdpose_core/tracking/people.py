"""The people of a stream of frames: who is who, steadily."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sdpose_core.tracking.smoothing import JointFilter, Smoothing
from sdpose_core.types import NO_ID, Floats, Ids, Poses
from sdpose_core.vision.geometry import box_sides

DEFAULT_SMOOTHING: Final = Smoothing()
_SHORTEST_S: Final = 1e-3
"""Between two frames: a clock of the caller may be any, and a number of frames must come of it."""


@dataclass(frozen=True, slots=True)
class TrackingConfig:
    """How people are followed.

    Attributes:
        grace_s: seconds for which a person that is not seen keeps the id.
        smoothing: of the joints; None leaves them as estimated.
        pose_weight: share of the pose in the likeness of two people, 0 for boxes alone.
        new_track_score: people below it keep an id but get no new one.
    """

    grace_s: float = 2.0
    smoothing: Smoothing | None = DEFAULT_SMOOTHING
    pose_weight: float = 0.7
    new_track_score: float = 0.4


class PeopleTracker:
    """One stream. Not for several threads at once."""

    def __init__(self, config: TrackingConfig | None = None) -> None:
        # Imported here, as it imports ultralytics, which nothing else may need.
        from sdpose_core.tracking.association import PoseByteTracker

        self._config = config or TrackingConfig()
        self._tracker = PoseByteTracker(
            self._config.new_track_score, pose_weight=self._config.pose_weight
        )
        self._filters: dict[int, tuple[JointFilter, float]] = {}
        self._time_s: float | None = None
        self._interval_s = 1 / 30
        self._seen: set[int] = set()

    @property
    def ids_given(self) -> int:
        """How many people got an id so far."""
        return len(self._seen)

    def smooth(self, smoothing: Smoothing | None) -> None:
        """From now on joints are steadied so; ids stay."""
        if smoothing != self._config.smoothing:
            self._config = replace(self._config, smoothing=smoothing)
            self._filters.clear()

    def update(self, poses: Poses, time_s: float) -> Poses:
        """The same people with ids and steadied joints, in the order of their ids.

        A person gets an id, and is answered, from the second frame on that shows it: what is there
        for one frame only is left out.

        Args:
            poses: of one frame.
            time_s: when the frame was taken, in seconds; should rise.

        Raises:
            ValueError: a number of the poses is not finite; the tracker stays unchanged.
        """
        if not poses.finite:
            raise ValueError("poses: every value must be finite")
        if self._time_s is not None and time_s > self._time_s:
            self._interval_s += 0.2 * (time_s - self._time_s - self._interval_s)
            self._interval_s = max(self._interval_s, _SHORTEST_S)
        self._time_s = time_s
        ids = self._tracker.assign(poses, max(1, round(self._config.grace_s / self._interval_s)))
        self._seen.update(int(one) for one in ids if one != NO_ID)
        poses = replace(poses, keypoints=self._steadied(poses, ids, time_s), ids=ids)
        order = np.argsort(ids, kind="stable")
        return poses.select(order[ids[order] != NO_ID])

    def _steadied(self, poses: Poses, ids: Ids, time_s: float) -> Floats:
        if self._config.smoothing is None:
            return poses.keypoints
        keypoints = poses.keypoints.copy()
        scales = box_sides(poses.boxes)
        for index, one in enumerate(ids.tolist()):
            if one == NO_ID:
                continue
            steady, _ = self._filters.get(one) or (JointFilter(self._config.smoothing), 0.0)
            self._filters[one] = steady, time_s
            keypoints[index] = steady(
                keypoints[index], poses.keypoint_scores[index], float(scales[index]), time_s
            )
        self._filters = {
            one: (steady, last)
            for one, (steady, last) in self._filters.items()
            if time_s - last <= self._config.grace_s
        }
        return keypoints
