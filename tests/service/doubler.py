"""A batcher with a plain function as its model, and an ear for what it reports."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Sequence

from service.scheduling.batch_run import BatchLimits
from service.scheduling.batching import Batcher
from service.scheduling.owner_thread import OwnerThread


class Doubler:
    """Doubles numbers; notes every batch; can be held, poisoned, killed or made to miscount."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], Hashable]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.poison: set[int] = set()
        self.deadly: set[int] = set()
        self.short: set[int] = set()

    def __call__(self, items: Sequence[int], group: Hashable) -> list[int]:
        assert self.gate.wait(100)
        self.batches.append((list(items), group))
        if self.deadly.intersection(items):
            raise SystemExit
        if self.poison.intersection(items):
            raise ValueError(f"poisoned batch {list(items)}")
        results = [2 * item for item in items]
        return results[1:] if self.short.intersection(items) else results


class Ear:
    """Remembers what the batcher reports."""

    def __init__(self) -> None:
        self.depths: list[int] = []
        self.waits: list[float] = []
        self.batches: list[tuple[int, str]] = []
        self.sheds: list[str] = []

    def queue_depth(self, stage: str, depth: int) -> None:
        self.depths.append(depth)

    def queue_wait(self, stage: str, seconds: float) -> None:
        self.waits.append(seconds)

    def dispatched(self, stage: str, cost: int, reason: str) -> None:
        self.batches.append((cost, reason))

    def shed(self, stage: str, reason: str) -> None:
        self.sheds.append(reason)


def batcher(
    doubler: Doubler,
    worker: OwnerThread,
    ear: Ear,
    *,
    max_cost: int = 4,
    max_wait_s: float = 0.0,
    max_queue_cost: int = 100,
) -> Batcher[int, int]:
    limits = BatchLimits(max_cost, max_wait_s, max_queue_cost)
    return Batcher("double", doubler, worker=worker, limits=limits, observer=ear)


async def held(box: Batcher[int, int], doubler: Doubler) -> asyncio.Task[object]:
    """Closes the gate and puts one item behind it, so that the next ones queue."""
    doubler.gate.clear()
    task: asyncio.Task[object] = asyncio.create_task(box.submit(1000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task
