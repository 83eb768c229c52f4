"""Gathers items of many callers into batches for one owner thread.

The batcher is generic: it knows costs, groups, priorities and deadlines, and nothing of what
the items are. All of its state belongs to the event loop; only `run` happens in the thread, so
there is no lock. A batch leaves when the owner is free, at once unless more items are expected
(`Batcher.expecting`, docs/decisions/0002-batching.md), and at the latest after `max_wait_s`.
Batchers that share an owner go by priority, then alternate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from math import ceil
from typing import Generic

from service.errors import deadline_exceeded, overloaded, stopping
from service.scheduling.batch_run import BatchLimits, BatchRun, Done, Entry, In, Out, Outcome, Run
from service.scheduling.fair_queue import FairQueue, Order
from service.scheduling.owner_thread import OwnerThread, WorkerLostError
from service.scheduling.turns import ANY_TIME, Turn
from service.telemetry.observers import QueueObserver, ShedReason, SilentObserver


class Batcher(Generic[In, Out]):
    """Feeds one owner thread with batches of at most `limits.max_cost`.

    `run(items, group)` is called in the owner thread with items of one group and must give one
    result per item. If it fails for a batch, the items are tried one by one, once, so that
    a bad item fails alone. An item dearer than `max_cost` travels alone.
    """

    def __init__(
        self,
        name: str,
        run: Run[In, Out],
        *,
        worker: OwnerThread,
        limits: BatchLimits,
        observer: QueueObserver | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self._run = BatchRun(name, run)
        self._worker = worker
        self._observer = observer or SilentObserver()
        self._waiting: FairQueue[Entry[In, Out]] = FairQueue(
            limits.max_queue_cost, partial(self._observer.queue_depth, name)
        )
        self._running_cost = 0
        self._expected = 0
        self._seconds_per_batch = 0.0
        self._draining = False
        self._closed = False
        self._ready_since: float | None = None
        self._pump_planned = False
        self._wait_timer: asyncio.TimerHandle | None = None
        self._idle_waiters: list[asyncio.Future[None]] = []
        worker.schedule.join(self._pump, lambda: self._waiting.priority)

    @property
    def queued_cost(self) -> int:
        """The summed cost of the items that wait for a batch."""
        return self._waiting.cost

    @property
    def expected_wait_s(self) -> float:
        """A forecast for a newcomer at the end: the batches ahead at the pace of the recent ones.

        Counted in batches, not in costs: a small batch takes more time per crop than a full one.
        The pace includes the time that a ready batch waited for a shared thread.
        """
        return self._wait_s(self._waiting.cost)

    def _wait_s(self, ahead: int) -> float:
        batches = ceil(ahead / self.limits.max_cost) + (self._running_cost > 0)
        return batches * self._seconds_per_batch

    async def submit(
        self,
        item: In,
        *,
        cost: int = 1,
        group: Hashable = None,
        turn: Turn = ANY_TIME,
    ) -> Done[Out]:
        """Queues one item and waits for its result.

        Raises `ServiceError` overloaded, deadline_exceeded or
        unavailable, or what `run` raised for this item. Cancelling the caller takes the item out
        of the queue.
        """
        if cost < 1:
            raise ValueError(f"cost must be at least 1, got {cost}")
        now = time.monotonic()
        order = self._waiting.order(turn)
        self._reject(cost, turn, order, now)
        loop = asyncio.get_running_loop()
        entry: Entry[In, Out] = Entry(item, cost, group, turn, order, now, loop.create_future())
        if turn.deadline is not None:
            entry.timer = loop.call_later(turn.deadline - now, self._expire, entry)
        self._waiting.join(entry)
        self._plan_pump()
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._withdraw(entry, "cancelled")
            raise
        finally:
            if entry.timer is not None:
                entry.timer.cancel()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """A block in which batches wait for one more item; docs/decisions/0015-memory.md."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1
            self._plan_pump()

    def announce(self) -> Callable[[], None]:
        """As `expecting`, for bytes in transit; returns what ends it when they are in."""
        loop = asyncio.get_running_loop()
        announced = ExitStack()
        announced.enter_context(self.expecting())
        loop.call_later(self.limits.max_wait_s, announced.close)

        def arrived() -> None:
            loop.call_soon(announced.close)

        return arrived

    async def drain(self) -> None:
        """Dispatches what is queued without waiting for company; returns when all is done."""
        self._draining = True
        self._plan_pump()
        if self._waiting or self._running_cost:
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(idle)
            await idle

    def close(self) -> None:
        """Rejects new items and fails those that wait with `unavailable`."""
        self._draining = self._closed = True
        for entry in list(self._waiting):
            self._waiting.withdraw(entry)
            if not entry.future.done():
                entry.future.set_exception(stopping())
        self._tell_if_idle()

    def _reject(self, cost: int, turn: Turn, order: Order, now: float) -> None:
        deadline = turn.deadline
        if self._worker.lost:
            raise WorkerLostError(self._worker.name)
        if self._closed:
            raise stopping()
        if deadline is not None and deadline <= now:
            self._observer.shed(self.name, "expired")
            raise deadline_exceeded(f"before {self.name}")
        # An empty queue takes any single item, however dear: it could never get in otherwise.
        if self._waiting and not self._waiting.room.fits(turn.share, cost):
            self._observer.shed(self.name, "queue_full")
            raise overloaded(f"the {self.name} queue is full", self.expected_wait_s)
        # With nothing ahead no forecast is made: a stale pace must not reject everything.
        if deadline is not None and self._waiting:
            late_s = now + self._wait_s(self._waiting.ahead(order)) - deadline
            if late_s > 0:
                self._observer.shed(self.name, "predicted_late")
                raise overloaded(f"the {self.name} queue is too long for this deadline", late_s)

    def _plan_pump(self) -> None:
        # One turn of the loop later, so that items submitted in the same turn share a batch.
        if not self._pump_planned:
            self._pump_planned = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Hands the next batch to the owner thread, if both are ready."""
        self._pump_planned = False
        if self._running_cost or not self._waiting:
            return
        batch, full = self._choose()
        reason = self._reason(batch, full)
        if reason is None:
            return
        ready_since = self._ready_since = self._ready_since or time.monotonic()
        if self._worker.schedule.taken:  # it is offered when free, and may have grown by then
            return
        if self._wait_timer is not None:
            self._wait_timer.cancel()
            self._wait_timer = None
        self._ready_since = None
        for entry in batch:
            self._waiting.begin(entry)
        self._worker.schedule.take(self._pump)
        self._running_cost = sum(entry.cost for entry in batch)
        self._observer.dispatched(self.name, self._running_cost, reason)
        loop = asyncio.get_running_loop()
        call = self._worker.call(partial(self._run, batch))

        def hand_over(future: Future[Outcome[Out]]) -> None:
            # The loop may be gone when the process is ordered to exit at once.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._finish, batch, ready_since, future)

        call.add_done_callback(hand_over)

    def _choose(self) -> tuple[list[Entry[In, Out]], bool]:
        """The first entry and those of its group behind it that still fit, and if it is full."""
        waiting = iter(self._waiting)
        head = next(waiting)
        batch, cost = [head], head.cost
        for entry in waiting:
            if cost >= self.limits.max_cost:
                break
            if entry.group != head.group:
                continue
            if cost + entry.cost > self.limits.max_cost:
                return batch, True
            batch.append(entry)
            cost += entry.cost
        return batch, cost >= self.limits.max_cost

    def _reason(self, batch: list[Entry[In, Out]], full: bool) -> str | None:
        """Why a batch leaves now; None if it waits for more items, which a timer ends."""
        if full:
            return "full"
        if self._draining:
            return "drain"
        if not self._expected or not self.limits.max_wait_s:
            return "idle"
        oldest = min(entry.enqueued for entry in batch)
        rest_s = oldest + self.limits.max_wait_s - time.monotonic()
        if rest_s <= 0:
            return "wait"
        if self._wait_timer is not None:
            self._wait_timer.cancel()
        self._wait_timer = asyncio.get_running_loop().call_later(rest_s, self._plan_pump)
        return None

    def _finish(
        self, batch: list[Entry[In, Out]], ready_since: float, call: Future[Outcome[Out]]
    ) -> None:
        self._running_cost = 0
        error = call.exception()
        if error is None:
            self._answer(batch, ready_since, call.result())
        else:
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(error)
            if self._worker.lost:
                self.close()
        self._tell_if_idle()
        self._worker.schedule.free()
        self._pump()  # if another has the thread now, from here on this batch waits for it

    def _answer(
        self, batch: list[Entry[In, Out]], ready_since: float, outcome: Outcome[Out]
    ) -> None:
        begun = [entry for entry in batch if entry.begun]
        for entry, result in zip(begun, outcome.results, strict=True):
            waited_s = outcome.started - entry.enqueued
            self._observer.queue_wait(self.name, waited_s)
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(Done(result, waited_s, outcome.ran_s))
        for entry in batch:
            if not entry.begun:
                self._observer.shed(
                    self.name, "cancelled" if entry.future.cancelled() else "expired"
                )
        if begun:
            pace = time.monotonic() - ready_since
            known = self._seconds_per_batch
            self._seconds_per_batch = pace if known == 0 else 0.8 * known + 0.2 * pace

    def _expire(self, entry: Entry[In, Out]) -> None:
        where = f"in the {self.name} queue" if not entry.begun else f"in {self.name}"
        self._withdraw(entry, "expired")
        if not entry.future.done():
            entry.future.set_exception(deadline_exceeded(where))

    def _withdraw(self, entry: Entry[In, Out], reason: ShedReason) -> None:
        if self._waiting.withdraw(entry):
            if not self._waiting:
                self._ready_since = None
            self._observer.shed(self.name, reason)
            self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        if self._waiting or self._running_cost:
            return
        for idle in self._idle_waiters:
            if not idle.done():
                idle.set_result(None)
        self._idle_waiters.clear()
