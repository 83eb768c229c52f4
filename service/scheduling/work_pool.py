"""A bounded pool of threads for blocking work that any thread may do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from service.errors import deadline_exceeded, overloaded, stopping
from service.scheduling.fair_queue import FairQueue, Order
from service.scheduling.turns import ANY_TIME, Turn
from service.telemetry.observers import QueueObserver, SilentObserver

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[], Any]
    turn: Turn
    order: Order
    enqueued: float
    cost: int = 1
    dropped: bool = False
    future: Future[Any] = field(default_factory=Future)


class _TooLateError(Exception):
    """The deadline passed before a thread took the work up."""


class WorkPool:
    """A thread pool that rejects work beyond a bound instead of queueing without end.

    Work goes by its turn (`FairQueue`), and no share may fill the queue alone.
    """

    def __init__(
        self, name: str, *, threads: int, max_waiting: int, observer: QueueObserver | None = None
    ) -> None:
        self.name = name
        self._threads = threads
        self._max_waiting = max_waiting
        self._observer = observer or SilentObserver()
        self._begun: dict[_Job, float] = {}
        # Reported with the lock held: else an older depth might be reported last.
        self._waiting: FairQueue[_Job] = FairQueue(
            threads + max_waiting, partial(self._observer.queue_depth, name)
        )
        self._stopped = False
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"sdpose-{name}")

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken up yet."""
        return len(self._waiting)

    @property
    def busy_s(self) -> float:
        """Seconds that the oldest running call has taken so far; 0 when idle."""
        with self._lock:
            return time.monotonic() - min(self._begun.values()) if self._begun else 0.0

    async def run(self, work: Callable[[], T], turn: Turn = ANY_TIME) -> T:
        """Runs `work` in a pool thread.

        Work not begun by the deadline of its `turn`, or when the caller is cancelled, is dropped.
        Raises `ServiceError` overloaded (the pool is full, or of this share), deadline_exceeded or
        unavailable (stopped), and what `work` raises.
        """
        now, deadline = time.monotonic(), turn.deadline
        if self._stopped:
            raise stopping()
        if deadline is not None and deadline <= now:
            self._observer.shed(self.name, "expired")
            raise deadline_exceeded(f"before {self.name}")
        job = self._queued(work, turn, now)
        # The thread that comes to this call takes whose turn it is then, not necessarily this job.
        self._pool.submit(self._next)
        scope = asyncio.timeout(None if deadline is None else deadline - now)
        try:
            async with scope:
                result: T = await asyncio.wrap_future(job.future)
                return result
        except _TooLateError:
            self._observer.shed(self.name, "expired")
        except TimeoutError:
            if not scope.expired():  # the work's own
                raise
            if self._withdraw(job):
                self._observer.shed(self.name, "expired")
        except asyncio.CancelledError:
            if self._stopped_alone():
                raise stopping() from None
            if self._withdraw(job):
                self._observer.shed(self.name, "cancelled")
            raise
        raise deadline_exceeded(f"in {self.name}")

    def stop(self) -> None:
        """Fails what has not begun with `unavailable`, as all that comes; the rest may finish."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for job in list(self._waiting):
            self._withdraw(job)
            job.future.cancel()

    def _stopped_alone(self) -> bool:
        """Whether it was `stop` that dropped the work of this task, and not the task's end."""
        task = asyncio.current_task()
        return self._stopped and task is not None and not task.cancelling()

    def _queued(self, work: Callable[[], T], turn: Turn, now: float) -> _Job:
        with self._lock:
            self._waiting.room.bound = self._threads + self._max_waiting - len(self._begun)
            if not self._waiting.room.fits(turn.share):
                self._observer.shed(self.name, "queue_full")
                raise overloaded(f"the {self.name} queue is full")
            job = _Job(work, turn, self._waiting.order(turn), now)
            self._waiting.join(job)
            return job

    def _next(self) -> None:
        """In a pool thread: the job whose turn it is; none if one was dropped."""
        with self._lock:
            job = next(iter(self._waiting), None)
            if job is None:
                return
            self._waiting.begin(job)
            now = self._begun[job] = time.monotonic()
            self._observer.queue_wait(self.name, now - job.enqueued)
        if not job.future.set_running_or_notify_cancel():
            self._done(job)
            return
        try:
            if job.turn.deadline is not None and job.turn.deadline <= time.monotonic():
                job.dropped = True
                raise _TooLateError
            result = job.work()
        except BaseException as error:  # noqa: BLE001 - it travels to the caller in the future
            self._done(job)
            job.future.set_exception(error)
        else:
            self._done(job)
            job.future.set_result(result)

    def _done(self, job: _Job) -> None:
        with self._lock:
            del self._begun[job]

    def _withdraw(self, job: _Job) -> bool:
        """Takes a job out of the queue; False if it has begun."""
        with self._lock:
            return self._waiting.withdraw(job) or job.dropped
