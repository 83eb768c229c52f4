"""When a stream detects people, and when their boxes follow their joints."""

from __future__ import annotations

import math
from typing import Final, Literal

LONGEST_S: Final = 0.5
"""A new person is found after so many seconds at the latest."""
MOST: Final = 10
"""Frames per detection at most if the pace is automatic."""
BUSY: Final = 0.8
"""Share of the time between two frames that may be used up."""
_TAKE_OVER: Final = 0.2


class Pace:
    """Decides by the times of the frames before. Times are seconds of one clock.

    Args:
        every: detect in every so many frames; `auto`: as often as frames come slowly enough for.
    """

    def __init__(self, every: int | Literal["auto"]) -> None:
        self._every = every
        self._since = 0
        self._lost = False
        self._detected_s = 0.0
        self._arrived_s: float | None = None
        self._interval_ms: float | None = None
        self._detected_ms: float | None = None
        self._followed_ms: float | None = None

    def arrived(self, now_s: float) -> None:
        """A frame is about to be processed, which came at this moment."""
        if self._arrived_s is not None and now_s > self._arrived_s:
            self._interval_ms = _mean(self._interval_ms, (now_s - self._arrived_s) * 1e3)
        self._arrived_s = now_s

    def due(self) -> bool:
        """Whether the people of the frame that arrived must be detected."""
        if self._lost or self._arrived_s is None:
            return True
        if self._every != "auto":
            return self._since + 1 >= self._every
        late = self._arrived_s - self._detected_s >= LONGEST_S
        return late or self._since + 1 >= self._frames()

    def detected(self, total_ms: float) -> None:
        """People were detected in the frame that arrived, which took so long in all."""
        self._since, self._detected_s, self._lost = 0, self._arrived_s or 0.0, False
        self._detected_ms = _mean(self._detected_ms, total_ms)

    def followed(self, total_ms: float, *, lost: bool) -> None:
        """Boxes followed the joints; `lost`: too few joints of a person were left."""
        self._since += 1
        self._lost = lost
        self._followed_ms = _mean(self._followed_ms, total_ms)

    def _frames(self) -> int:
        """The fewest frames per detection for which there is time."""
        if self._interval_ms is None or self._detected_ms is None:
            return 1
        time_ms = BUSY * self._interval_ms
        if self._detected_ms <= time_ms:
            return 1
        if self._followed_ms is None:
            return 2  # what following costs is not known yet
        extra_ms = self._detected_ms - self._followed_ms
        left_ms = time_ms - self._followed_ms
        if left_ms * MOST <= extra_ms:
            return MOST
        return max(1, math.ceil(extra_ms / left_ms))


def _mean(before: float | None, new: float) -> float:
    return new if before is None else before + _TAKE_OVER * (new - before)
