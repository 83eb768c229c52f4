"""A bounded pool of threads for blocking work that any thread may do."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from service.errors import ErrorCode, ServiceError, deadline_exceeded
from service.telemetry.observers import QueueObserver, SilentObserver

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Job:
    enqueued: float
    begun: bool = False
    dropped: bool = False


class _TooLateError(Exception):
    """The deadline passed before a thread took the work up."""


class WorkPool:
    """A thread pool that refuses work beyond a bound instead of queueing without end."""

    def __init__(
        self, name: str, *, threads: int, max_waiting: int, observer: QueueObserver | None = None
    ) -> None:
        self.name = name
        self._bound = threads + max_waiting
        self._observer = observer or SilentObserver()
        self._pending = 0
        self._waiting = 0
        self._stopped = False
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"sdpose-{name}")

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken up yet."""
        return self._waiting

    async def run(self, work: Callable[[], T], *, deadline: float | None = None) -> T:
        """Runs `work` in a pool thread.

        `deadline` is a `time.monotonic()` moment; work not begun by then, or when the caller is
        cancelled, is dropped. Raises `ServiceError` overloaded (the pool is full),
        deadline_exceeded or unavailable (stopped), and what `work` raises.
        """
        now = time.monotonic()
        if self._stopped:
            raise self._stopping()
        if deadline is not None and deadline <= now:
            self._observer.shed(self.name, "expired")
            raise deadline_exceeded(f"before {self.name}")
        job = _Job(now)
        if not self._enter():
            self._observer.shed(self.name, "queue_full")
            raise ServiceError(
                ErrorCode.OVERLOADED, f"the {self.name} queue is full", retry_after_s=1.0
            )

        def begin() -> T:
            self._begin(job)
            if deadline is not None and deadline <= time.monotonic():
                job.dropped = True
                raise _TooLateError
            return work()

        inner = self._pool.submit(begin)
        inner.add_done_callback(lambda _: self._leave(job))
        scope = asyncio.timeout(None if deadline is None else deadline - now)
        try:
            async with scope:
                return await asyncio.wrap_future(inner)
        except _TooLateError:
            self._observer.shed(self.name, "expired")
        except TimeoutError:
            if not scope.expired():  # the work's own
                raise
            if inner.cancel() or job.dropped:
                self._observer.shed(self.name, "expired")
        except asyncio.CancelledError:
            if self._stopped_alone():
                raise self._stopping() from None
            if inner.cancel():
                self._observer.shed(self.name, "cancelled")
            raise
        raise deadline_exceeded(f"in {self.name}")

    def stop(self) -> None:
        """Fails what has not begun with `unavailable`, as all that comes; the rest may finish."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _stopped_alone(self) -> bool:
        """Whether it was `stop` that dropped the work of this task, and not the task's end."""
        task = asyncio.current_task()
        return self._stopped and task is not None and not task.cancelling()

    def _stopping(self) -> ServiceError:
        return ServiceError(ErrorCode.UNAVAILABLE, "the service is stopping", retry_after_s=2.0)

    def _enter(self) -> bool:
        with self._lock:
            if self._pending >= self._bound:
                return False
            self._pending += 1
            self._waits(1)
            return True

    def _begin(self, job: _Job) -> None:
        with self._lock:
            job.begun = True
            self._waits(-1)
            self._observer.queue_wait(self.name, time.monotonic() - job.enqueued)

    def _leave(self, job: _Job) -> None:
        with self._lock:
            self._pending -= 1
            if not job.begun:
                self._waits(-1)

    def _waits(self, more: int) -> None:
        # Reported with the lock held: else an older depth might be reported last.
        self._waiting += more
        self._observer.queue_depth(self.name, self._waiting)
