"""Threads that do blocking work for the event loop: owners of models, and a bounded pool."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

from service.errors import ErrorCode, ServiceError

T = TypeVar("T")


class WorkerLostError(ServiceError):
    """The thread that owns a model has ended; its work cannot be finished here."""

    def __init__(self, name: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, f"the {name} worker is lost", retry_after_s=5.0)


class OwnerThread:
    """One thread that alone touches what it owns, and runs calls in the order they came.

    An ordinary exception belongs to the call that raised it. Anything harder (`SystemExit`,
    `KeyboardInterrupt`, other `BaseException`) ends the thread: it is then `lost`, and every
    waiting and later call fails with `WorkerLostError`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
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
                self._give_up(future)
                return
            else:
                future.set_result(result)
            finally:
                self._busy_since = None
            # Held here, the last batch and its images would live until the next call.
            del call, work, future
            result = None

    def _give_up(self, future: Future[Any]) -> None:
        with self._lock:
            self._lost = True
            future.set_exception(WorkerLostError(self.name))
            while not self._calls.empty():
                call = self._calls.get()
                if call is not None:
                    call[1].set_exception(WorkerLostError(self.name))


class WorkPool:
    """A thread pool that refuses work beyond a bound instead of queueing without end."""

    def __init__(self, name: str, *, threads: int, max_waiting: int) -> None:
        self.name = name
        self._threads = threads
        self._bound = threads + max_waiting
        self._pending = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"sdpose-{name}")

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken up yet."""
        return max(0, self._pending - self._threads)

    async def run(self, work: Callable[[], T], *, deadline: float | None = None) -> T:
        """Runs `work` in a pool thread.

        `deadline` is a `time.monotonic()` moment; work not begun by then is dropped. Raises
        `ServiceError` overloaded (the pool is full) or deadline_exceeded, and what `work` raises.
        """
        if not self._one_more():
            raise ServiceError(
                ErrorCode.OVERLOADED, f"the {self.name} queue is full", retry_after_s=1.0
            )
        inner = self._pool.submit(work)
        inner.add_done_callback(lambda _: self._one_less())
        future = asyncio.wrap_future(inner)
        if deadline is None:
            return await future
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await future
        except TimeoutError:
            raise ServiceError(
                ErrorCode.DEADLINE_EXCEEDED, f"the deadline passed in {self.name}"
            ) from None

    def _one_more(self) -> bool:
        with self._lock:
            if self._pending >= self._bound:
                return False
            self._pending += 1
            return True

    def _one_less(self) -> None:
        # Called from pool threads; a lost update would leak capacity.
        with self._lock:
            self._pending -= 1

    def stop(self) -> None:
        """Drops what has not begun and lets the rest finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)
