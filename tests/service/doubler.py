"""A batcher with a plain function as its model, and an ear for what it reports."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Sequence

from service.scheduling.batch_run import BatchLimits
from service.scheduling.batching import Batcher
from service.scheduling.owner_thread import OwnerThread


class Doubler:
    """Doubles numbers; notes every batch; can be held or made to miscount."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], Hashable]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.short: set[int] = set()

    def __call__(self, items: Sequence[int], group: Hashable) -> list[int]:
        assert self.gate.wait(100)
        self.batches.append((list(items), group))
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


class Stand:
    """Makes batchers of a doubler on one thread, with an ear."""

    def __init__(self, worker: OwnerThread) -> None:
        self.doubler, self.ear = Doubler(), Ear()
        self._worker = worker

    def box(
        self, *, max_cost: int = 4, max_wait_s: float = 0.0, max_queue_cost: int = 100
    ) -> Batcher[int, int]:
        limits = BatchLimits(max_cost, max_wait_s, max_queue_cost)
        return Batcher(
            "double", self.doubler, worker=self._worker, limits=limits, observer=self.ear
        )

    async def held(self, box: Batcher[int, int]) -> asyncio.Task[object]:
        """Closes the gate and puts one item behind it, so that the next ones queue."""
        self.doubler.gate.clear()
        task: asyncio.Task[object] = asyncio.create_task(box.submit(1000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task
