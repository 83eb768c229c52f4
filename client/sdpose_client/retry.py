"""When to try again, and how long to wait before."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from sdpose_client.errors import ErrorCode, ServiceError

T = TypeVar("T")
_WORTH_RETRYING = (ErrorCode.OVERLOADED, ErrorCode.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Retry:
    """At most `attempts` tries; pauses as the service asks, else doubling from `first_s`."""

    attempts: int = 4
    first_s: float = 0.1
    longest_s: float = 10.0

    def run(self, attempt: Callable[[float | None], T], timeout_s: float | None) -> T:
        """The value of the first attempt that raises no `ServiceError`; each gets the seconds left.

        Raises the error of the last attempt, or deadline_exceeded if no time is left for one.
        """
        deadline, tried = _deadline_from(timeout_s), 0
        while True:
            left, tried = _left_s(deadline), tried + 1
            try:
                return attempt(left)
            except ServiceError as error:
                pause = self._pause_s(tried, error, deadline)
            time.sleep(pause)

    async def run_async(
        self, attempt: Callable[[float | None], Awaitable[T]], timeout_s: float | None
    ) -> T:
        """As `run`, on an event loop."""
        deadline, tried = _deadline_from(timeout_s), 0
        while True:
            left, tried = _left_s(deadline), tried + 1
            try:
                return await attempt(left)
            except ServiceError as error:
                pause = self._pause_s(tried, error, deadline)
            await asyncio.sleep(pause)

    def _pause_s(self, tried: int, error: ServiceError, deadline: float | None) -> float:
        """Seconds to wait after the `tried`-th try failed; raises `error` if it is the last.

        `deadline` is a `time.monotonic()` moment; a pause that would pass it is not begun.
        """
        if tried >= self.attempts or error.code not in _WORTH_RETRYING:
            raise error
        pause = error.retry_after_s
        if pause is None:
            # Full jitter, so that clients rejected together do not come back together.
            pause = random.uniform(0.0, self.first_s * 2 ** (tried - 1))  # noqa: S311 - a pause
        pause = min(pause, self.longest_s)
        if deadline is not None and time.monotonic() + pause >= deadline:
            raise error
        return pause


def _deadline_from(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _left_s(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise ServiceError(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the call")
    return left
