"""Trackers of ended streams, so that a client that reconnects keeps its people's ids."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from sdpose_core.tracking import PeopleTracker


class Resumable:
    """Trackers by token, each for `grace_s` seconds, at most `limit`; the oldest go first."""

    def __init__(
        self, limit: int, grace_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._grace_s = grace_s
        self._clock = clock
        self._kept: OrderedDict[str, tuple[PeopleTracker, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, token: str, tracker: PeopleTracker) -> None:
        """Keeps the tracker of a stream that has ended."""
        self._forget()
        self._kept[token] = (tracker, self._clock())
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def take(self, token: str) -> PeopleTracker | None:
        """The tracker of this token, once; None if it is unknown, in use or too old."""
        self._forget()
        tracker, _ = self._kept.pop(token, (None, 0.0))
        return tracker

    def _forget(self) -> None:
        oldest = self._clock() - self._grace_s
        while self._kept and next(iter(self._kept.values()))[1] < oldest:
            self._kept.popitem(last=False)
