"""Threads that own models and do blocking work for the event loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from service.errors import ErrorCode, ServiceError

T = TypeVar("T")

_log = logging.getLogger(__name__)


class WorkerLostError(ServiceError):
    """The thread that owns a model has ended; its work cannot be finished here."""

    def __init__(self, name: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, f"the {name} worker is lost", retry_after_s=5.0)


class NoDeviceMemoryError(ServiceError):
    """The device has not the memory for this work now; less of it may fit."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.OVERLOADED, "the memory of the device does not suffice", retry_after_s=1.0
        )


class OwnerSchedule:
    """Which batcher goes next on an owner thread that several share. State of the event loop.

    A thread has its own queue, but what waits there can neither grow into a larger batch
    nor be dropped; so work stays with its owner until the thread is free.
    """

    def __init__(self) -> None:
        self.taken = False
        self._sharers: list[Callable[[], None]] = []
        self._priorities: dict[Callable[[], None], Callable[[], float]] = {}

    def join(self, offer: Callable[[], None], priority: Callable[[], float]) -> None:
        """`offer` is called when the thread is free: it calls `take` if it has work to give.

        `priority` gives that of its work now; lower goes first.
        """
        self._sharers.append(offer)
        self._priorities[offer] = priority

    def take(self, offer: Callable[[], None]) -> None:
        """The sharer that joined with `offer` has the thread now; it must `free` it again."""
        assert not self.taken, "the thread is busy"
        self.taken = True
        # To the end of the line: the others come first when the thread is free again.
        self._sharers.remove(offer)
        self._sharers.append(offer)

    def free(self) -> None:
        """Offers the thread to each sharer: by priority, then whose last turn is longest ago."""
        self.taken = False
        for offer in sorted(self._sharers, key=lambda offer: self._priorities[offer]()):
            if self.taken:
                return
            offer()


class OwnerThread:
    """One thread that alone touches what it owns, and runs calls in the order they came.

    Those who share it do so by its `schedule`. An ordinary exception belongs to the call that
    raised it. Anything harder (`SystemExit`, `KeyboardInterrupt`, other `BaseException`) ends the
    thread: it is then `lost`, and every waiting and later call fails with `WorkerLostError`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.schedule = OwnerSchedule()
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._stopping = False
        self._lost = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._work, name=f"sdpose-{name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """True when the thread ended without a call of `stop`."""
        return self._lost or (not self._stopping and not self._thread.is_alive())

    @property
    def busy_s(self) -> float:
        """Seconds that the running call has taken so far; 0 when idle."""
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
        """From now on it is `lost`; the running call, if any, still ends normally."""
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
            except BaseException:  # noqa: BLE001 - reported through `lost`; callers must not hang
                self.give_up()
                future.set_exception(WorkerLostError(self.name))
                return
            else:
                future.set_result(result)
            finally:
                self._busy_since = None
            # docs/decisions/0015-memory.md
            del call, work, future
            result = None


@contextmanager
def on_device(workers: Sequence[OwnerThread], alive: Callable[[], bool]) -> Iterator[None]:
    """Work on the device of what `workers` own, in any thread.

    If it fails and the device is no more `alive`, they are lost with it: a GPU that once met
    a fault there fails every later request of this process. Raises `WorkerLostError` then, and
    `NoDeviceMemoryError` if its memory did not suffice.
    """
    try:
        yield
    except Exception as error:
        if _of_memory(error):
            # Without its frames: docs/decisions/0015-memory.md.
            _log.warning("the memory of the device does not suffice: %s", error)
            raise NoDeviceMemoryError from None
        if alive():
            raise
        if not all(worker.lost for worker in workers):
            _log.exception("the device of the models is lost")
        for worker in workers:
            worker.give_up()
        raise WorkerLostError(workers[0].name) from error


def _of_memory(error: Exception) -> bool:
    # By its name: PyTorch is not loaded here.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
