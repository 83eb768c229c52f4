"""Threads that do blocking work for the event loop: owners of models, and a bounded pool."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from service.errors import ErrorCode, ServiceError, deadline_exceeded
from service.telemetry.observers import QueueObserver, SilentObserver

T = TypeVar("T")

_log = logging.getLogger(__name__)


class WorkerLostError(ServiceError):
    """The thread that owns a model has ended; its work cannot be finished here."""

    def __init__(self, name: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, f"the {name} worker is lost", retry_after_s=5.0)


class Turns:
    """Whose work goes next, for those who share one owner thread. State of the event loop.

    A thread has a queue of its own, but what lies there can neither grow into a larger batch
    nor be dropped; so work stays with its owner until the thread is free.
    """

    def __init__(self) -> None:
        self.taken = False
        self._sharers: list[Callable[[], None]] = []

    def join(self, offer: Callable[[], None]) -> None:
        """`offer` is called when the thread is free: it calls `take` if it has work to give."""
        self._sharers.append(offer)

    def take(self, offer: Callable[[], None]) -> None:
        """The sharer that joined with `offer` has the thread now; it must `free` it again."""
        assert not self.taken, "the thread is at work"
        self.taken = True
        # To the end of the line: the others are asked first when the thread is free again.
        self._sharers.remove(offer)
        self._sharers.append(offer)

    def free(self) -> None:
        """Offers the thread to each sharer, whose last turn is longest ago first."""
        self.taken = False
        for offer in list(self._sharers):
            if self.taken:
                return
            offer()


class OwnerThread:
    """One thread that alone touches what it owns, and runs calls in the order they came.

    Those who share it take `turns`. An ordinary exception belongs to the call that raised it.
    Anything harder (`SystemExit`, `KeyboardInterrupt`, other `BaseException`) ends the thread:
    it is then `lost`, and every waiting and later call fails with `WorkerLostError`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.turns = Turns()
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._stopping = False
        self._lost = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._work, name=f"sdpose-{name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """True when the thread ended without being asked to."""
        return self._lost or (not self._stopping and not self._thread.is_alive())

    @property
    def busy_s(self) -> float:
        """Seconds that the call at work has taken so far; 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Queues `work` and gives its future."""
        future: Future[T] = Future()
        with self._lock:
            if self.lost or self._stopping:
                future.set_exception(WorkerLostError(self.name))
            else:
                self._calls.put((work, future))
        return future

    def give_up(self) -> None:
        """From now on it is `lost`; the call at work, if any, still has its own end."""
        with self._lock:
            self._lost = True
            while not self._calls.empty():
                call = self._calls.get()
                if call is not None:
                    call[1].set_exception(WorkerLostError(self.name))
            self._calls.put(None)

    def stop(self, timeout_s: float | None = None) -> bool:
        """Ends the thread after the calls that are queued; False if it outlasts the timeout."""
        with self._lock:
            self._stopping = True
            self._calls.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            work, future = call
            if not future.set_running_or_notify_cancel():
                continue
            self._busy_since = time.monotonic()
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - it travels to the caller in the future
                future.set_exception(error)
            except BaseException:  # noqa: BLE001 - told through `lost`; callers must not hang
                self.give_up()
                future.set_exception(WorkerLostError(self.name))
                return
            else:
                future.set_result(result)
            finally:
                self._busy_since = None
            # Held here, the last batch and its images would live until the next call.
            del call, work, future
            result = None


@contextmanager
def on_device(workers: Sequence[OwnerThread], alive: Callable[[], bool]) -> Iterator[None]:
    """Work on the device of what `workers` own, in any thread.

    Where it fails and the device is no more `alive`, they are lost with it: a GPU that once met
    a fault of its own fails whatever this process asks of it. Raises `WorkerLostError` then.
    """
    try:
        yield
    except Exception as error:
        if alive():
            raise
        if not all(worker.lost for worker in workers):
            _log.exception("the device of the models is lost")
        for worker in workers:
            worker.give_up()
        raise WorkerLostError(workers[0].name) from error


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
        # With the lock held, also while it is told: else an older depth might be told last.
        self._waiting += more
        self._observer.queue_depth(self.name, self._waiting)
