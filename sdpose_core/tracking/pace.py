"""When a stream detects people anew, and when their boxes follow their joints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

LONGEST_S: Final = 0.5
"""A new person is found after so many seconds at the latest."""
MOST: Final = 10
"""Frames per detection at most where the pace is automatic."""
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
        self._detected_s = 0.0
        self._offered_s: float | None = None
        self._interval_ms: float | None = None
        self._detect_ms = 0.0
        self._rest_ms = 0.0
        self._lost = False

    def offered(self, now_s: float) -> None:
        """A frame is about to be processed, which came at this moment."""
        if self._offered_s is not None and now_s > self._offered_s:
            self._interval_ms = _mean(self._interval_ms, (now_s - self._offered_s) * 1e3)
        self._offered_s = now_s

    def due(self, now_s: float) -> bool:
        """Whether the people of this frame must be detected."""
        if self._lost:
            return True
        if self._every != "auto":
            return self._since + 1 >= self._every
        return self._since + 1 >= self._frames() or now_s - self._detected_s >= LONGEST_S

    def detected(self, now_s: float, timings_ms: Mapping[str, float]) -> None:
        """People were detected."""
        self._since, self._detected_s, self._lost = 0, now_s, False
        self._detect_ms = _mean(self._detect_ms or None, timings_ms.get("detect", 0.0))
        self._rest(timings_ms)

    def followed(self, timings_ms: Mapping[str, float], *, lost: bool) -> None:
        """Boxes followed the joints; `lost`: of somebody too few were left."""
        self._since += 1
        self._lost = lost
        self._rest(timings_ms)

    def _rest(self, timings_ms: Mapping[str, float]) -> None:
        rest = timings_ms["total"] - timings_ms.get("detect", 0.0)
        self._rest_ms = _mean(self._rest_ms or None, rest)

    def _frames(self) -> int:
        """The fewest frames per detection for which there is time."""
        if self._interval_ms is None:
            return 1
        left_ms = BUSY * self._interval_ms - self._rest_ms
        if left_ms <= self._detect_ms / MOST:
            return MOST
        return max(1, -int(-self._detect_ms // left_ms))


def _mean(before: float | None, new: float) -> float:
    return new if before is None else before + _TAKE_OVER * (new - before)
