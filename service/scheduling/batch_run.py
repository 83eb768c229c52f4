"""The items of a batch, and how the owner thread runs them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

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
    """What the owner thread made of the entries that it began: a value or an error for each."""

    results: Sequence[Out | Exception]
    started: float
    ran_s: float


class BatchRun(Generic[In, Out]):
    """Runs batches in the owner thread; `run(items, group)` gives one result per item."""

    def __init__(self, name: str, run: Run[In, Out]) -> None:
        self._name = name
        self._run = run

    def __call__(self, batch: Sequence[Entry[In, Out]]) -> Outcome[Out]:
        """In the owner thread: what is still wanted as a batch, or each alone where that fails."""
        started = time.monotonic()
        wanted = [entry for entry in batch if not entry.future.done()]
        for entry in wanted:
            entry.begun = True
        results: Sequence[Out | Exception] = ()
        try:
            if wanted:
                results = self._checked([entry.item for entry in wanted], wanted[0].group)
        except NoDeviceMemoryError:
            results = self._in_halves(wanted)
        except Exception as error:  # noqa: BLE001 - it becomes the items' own answer
            if len(wanted) == 1:
                results = [error]
            else:
                _log.exception(
                    "a %s batch of %d failed; trying one by one", self._name, len(wanted)
                )
                results = [self._alone(entry) for entry in wanted]
        return Outcome(results, started, time.monotonic() - started)

    def _in_halves(self, wanted: Sequence[Entry[In, Out]]) -> list[Out | Exception]:
        """What needed too much memory together, in smaller and smaller batches."""
        if len(wanted) == 1:
            return [NoDeviceMemoryError()]
        results: list[Out | Exception] = []
        middle = len(wanted) // 2
        for half in (wanted[:middle], wanted[middle:]):
            if len(half) == 1:
                results.append(self._alone(half[0]))
                continue
            try:
                results += self._checked([entry.item for entry in half], half[0].group)
            except NoDeviceMemoryError:
                results += self._in_halves(half)
            except Exception:  # noqa: BLE001 - it becomes the items' own answer
                results += [self._alone(entry) for entry in half]
        return results

    def _alone(self, entry: Entry[In, Out]) -> Out | Exception:
        if entry.future.done():  # expired or cancelled in the meantime: no one waits for it
            return deadline_exceeded(f"in {self._name}")
        try:
            return self._checked([entry.item], entry.group)[0]
        except Exception as error:  # noqa: BLE001 - it becomes the item's own answer
            return error

    def _checked(self, items: Sequence[In], group: Hashable) -> Sequence[Out]:
        results = self._run(items, group)
        if len(results) != len(items):
            raise RuntimeError(f"{self._name} gave {len(results)} results for {len(items)} items")
        return results
