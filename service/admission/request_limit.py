"""Limit of requests in flight, and the forecast of when one more would be answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from service.errors import ErrorCode, ServiceError
from service.scheduling.shares import FairBound
from service.telemetry.observers import ShedReason

_MARGIN = 1.2
"""The forecast knows nothing of what the requests ahead contain."""
_RECENT = 50
"""Answers over which the pace is averaged."""


class RequestLimit:
    """At most `most` requests at once, shared fairly. All of it belongs to the event loop.

    Args:
        most: requests in flight.
        shed: called with the reason of each refusal.
    """

    def __init__(self, most: int, shed: Callable[[ShedReason], None]) -> None:
        self._room = FairBound(most)
        self._shed = shed
        self._seconds_each = 0.0
        self._answers = 0
        self._since = 0.0

    @property
    def in_flight(self) -> int:
        """Requests that were let in and have not ended."""
        return self._room.used

    def expected_wait_s(self, share: Hashable) -> float:
        """A forecast of the time to the answer of one more request of a share.

        The requests ahead at the pace of the recent answers. Of another share only as many are
        ahead as this one would have: they take turns.
        """
        return self._room.ahead(share) * self._seconds_each

    def check(self, share: Hashable, patience_s: float) -> None:
        """Raises `ServiceError` overloaded where a request could not be let in now.

        `patience_s` is the time in which its answer is wanted.
        """
        if not self._room.fits(share):
            raise self._refusal("too_many_requests", "too many requests are in flight", 1.0)
        late_s = _MARGIN * self.expected_wait_s(share) - patience_s
        if late_s > 0:
            raise self._refusal(
                "predicted_late", "too many requests are ahead for this deadline", late_s
            )

    @contextmanager
    def taken(self, share: Hashable, patience_s: float) -> Iterator[None]:
        """Lets one request in until the block ends. Raises `ServiceError` as `check` does."""
        self.check(share, patience_s)
        if not self.in_flight:
            self._since = time.monotonic()
        with self._room.taken(share):
            yield

    def note_answer(self) -> None:
        """One request was answered, and ends now: only such count towards the pace."""
        now = time.monotonic()
        self._answers += 1
        weight = 1 / min(self._answers, _RECENT)
        self._seconds_each += weight * (now - self._since - self._seconds_each)
        self._since = now

    def _refusal(self, reason: ShedReason, message: str, after_s: float) -> ServiceError:
        self._shed(reason)
        return ServiceError(ErrorCode.OVERLOADED, message, retry_after_s=after_s)
