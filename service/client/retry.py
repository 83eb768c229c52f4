"""When to try again, and how long to wait before."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from service.errors import ErrorCode, ServiceError

_WORTH_RETRYING = (ErrorCode.OVERLOADED, ErrorCode.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Retry:
    """At most `attempts` tries; pauses as the service asks, else doubling from `first_s`."""

    attempts: int = 4
    first_s: float = 0.1
    longest_s: float = 10.0

    def pause_s(self, tried: int, error: ServiceError, deadline: float | None) -> float:
        """Seconds to wait after the `tried`-th try failed; raises `error` where it is the last.

        `deadline` is a `time.monotonic()` moment; a pause that would pass it is not begun.
        """
        if tried >= self.attempts or error.code not in _WORTH_RETRYING:
            raise error
        pause = error.retry_after_s
        if pause is None:
            # Full jitter, so that clients refused together do not come back together.
            pause = random.uniform(0.0, self.first_s * 2 ** (tried - 1))
        pause = min(pause, self.longest_s)
        if deadline is not None and time.monotonic() + pause >= deadline:
            raise error
        return pause


def deadline_from(timeout_s: float | None) -> float | None:
    """The moment at which a timeout that starts now ends."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def left_s(deadline: float | None) -> float | None:
    """Seconds left; raises deadline_exceeded when there are none."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise ServiceError(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the call")
    return left
