"""The items of a batch, and how the owner thread runs them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from service.errors import deadline_exceeded
from service.scheduling.fair_queue import Order
from service.scheduling.owner_thread import NoDeviceMemoryError
from service.scheduling.turns import Turn

In = TypeVar("In")
Out = TypeVar("Out")
Run = Callable[[Sequence[In], Hashable], Sequence[Out]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one batcher; costs are in the caller's unit, such as crops."""

    max_cost: int = 16
    max_wait_s: float = 0.0
    max_queue_cost: int = 256

    def __post_init__(self) -> None:
        if self.max_cost < 1 or self.max_queue_cost < 1 or self.max_wait_s < 0:
            raise ValueError(f"batch limits must be positive, got {self}")


@dataclass(frozen=True, slots=True)
class Done(Generic[Out]):
    """The answer to one item, with the seconds it waited and the seconds its batch ran."""

    value: Out
    waited_s: float
    ran_s: float


@dataclass(eq=False, slots=True)
class Entry(Generic[In, Out]):
    item: In
    cost: int
    group: Hashable
    turn: Turn
    order: Order
    enqueued: float
    future: asyncio.Future[Done[Out]]
    begun: bool = False
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Out]):
    """Results of the entries that the owner thread began: a value or an error for each."""

    results: Sequence[Out | Exception]
    started: float
    ran_s: float


class BatchRun(Generic[In, Out]):
    """Runs batches in the owner thread; `run(items, group)` gives one result per item."""

    def __init__(self, name: str, run: Run[In, Out]) -> None:
        self._name = name
        self._run = run

    def __call__(self, batch: Sequence[Entry[In, Out]]) -> Outcome[Out]:
        """In the owner thread: runs the pending entries as a batch, or each alone if that fails."""
        started = time.monotonic()
        pending = [entry for entry in batch if not entry.future.done()]
        for entry in pending:
            entry.begun = True
        results: Sequence[Out | Exception] = ()
        try:
            if pending:
                results = self._counted(self._run(*_items(pending)), pending)
        except Exception as error:  # noqa: BLE001 - it becomes the items' own answer
            results = self._in_parts(pending, error)
        return Outcome(results, started, time.monotonic() - started)

    def _in_parts(
        self, failed: Sequence[Entry[In, Out]], error: Exception
    ) -> list[Out | Exception]:
        """Retries a failed batch: in halves if memory did not suffice, else each item alone."""
        if len(failed) == 1:
            return [error]
        if isinstance(error, NoDeviceMemoryError):
            middle = len(failed) // 2
            parts = [failed[:middle], failed[middle:]]
        else:
            message = "a %s batch of %d failed; trying one by one"
            _log.error(message, self._name, len(failed), exc_info=error)
            parts = [[entry] for entry in failed]
        results: list[Out | Exception] = []
        for part in parts:
            if len(part) == 1 and part[0].future.done():  # expired or cancelled in the meantime
                results.append(deadline_exceeded(f"in {self._name}"))
                continue
            try:
                results += self._counted(self._run(*_items(part)), part)
            except Exception as again:  # noqa: BLE001 - it becomes the items' own answer
                results += self._in_parts(part, again)
        return results

    def _counted(self, results: Sequence[Out], entries: Sequence[object]) -> Sequence[Out]:
        if len(results) != len(entries):
            raise RuntimeError(f"{self._name} gave {len(results)} results for {len(entries)} items")
        return results


def _items(entries: Sequence[Entry[In, Any]]) -> tuple[list[In], Hashable]:
    """The arguments of `run` for entries, all of one group."""
    return [entry.item for entry in entries], entries[0].group
