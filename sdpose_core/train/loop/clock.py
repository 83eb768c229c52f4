"""Time spent computing, without pauses."""

from __future__ import annotations

import statistics
from collections import deque


class ComputeClock:
    """Adds up step durations; an outlier counts as a typical one.

    A process that was suspended, or a laptop that slept, shows one very long step: a step longer
    than five times the median of the last 15 counts as the median.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._recent: deque[float] = deque(maxlen=15)

    def add(self, duration: float) -> None:
        """Count one step of ``duration`` seconds."""
        if len(self._recent) >= 5:
            usual = statistics.median(self._recent)
            if duration > 5 * usual:
                duration = usual
        self._recent.append(duration)
        self.seconds += duration
