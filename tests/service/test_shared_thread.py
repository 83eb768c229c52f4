"""Two batchers with one owner thread, as detector and student have it on a CPU."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Hashable, Sequence

import pytest

from service.errors import ErrorCode, ServiceError
from service.scheduling.batch_run import BatchLimits
from service.scheduling.batching import Batcher
from service.scheduling.owner_thread import OwnerThread
from service.scheduling.turns import Turn
from tests.service.conftest import rejected
from tests.service.doubler import Ear

pytestmark = pytest.mark.anyio


class Model:
    """Two names for one model whose batches are noted in order; each waits at a gate."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def run(self, name: str, items: Sequence[int]) -> list[int]:
        self.entered.set()
        assert self.gate.wait(100)
        self.batches.append((name, list(items)))
        return list(items)

    def detect(self, items: Sequence[int], group: Hashable) -> list[int]:
        return self.run("detect", items)

    def pose(self, items: Sequence[int], group: Hashable) -> list[int]:
        return self.run("pose", items)


class Pair:
    """Both batchers over one thread, with the gate closed."""

    def __init__(self, worker: OwnerThread, max_cost: int = 8, max_wait_s: float = 0.0) -> None:
        self.model = Model()
        self.worker = worker
        self.ear = Ear()
        limits = BatchLimits(max_cost, max_wait_s)
        self.detect: Batcher[int, int] = Batcher(
            "detect", self.model.detect, worker=worker, limits=limits, observer=self.ear
        )
        self.pose: Batcher[int, int] = Batcher(
            "pose", self.model.pose, worker=worker, limits=limits, observer=self.ear
        )

    async def start(self, box: Batcher[int, int], item: int = 100) -> asyncio.Task[object]:
        """Puts one item into the thread, where the gate holds it."""
        task: asyncio.Task[object] = asyncio.create_task(box.submit(item))
        await asyncio.to_thread(self.model.entered.wait, 100)
        return task

    async def add(
        self, box: Batcher[int, int], *items: int, priority: int = 0
    ) -> list[asyncio.Task[object]]:
        """Submits items one after the other, each in a moment of its own."""
        tasks: list[asyncio.Task[object]] = []
        for item in items:
            tasks.append(asyncio.create_task(box.submit(item, turn=Turn(priority=priority))))
            for _ in range(5):
                await asyncio.sleep(0)
        return tasks


@pytest.fixture
def pair(worker: OwnerThread) -> Pair:
    return Pair(worker)


async def test_what_comes_while_the_other_runs_is_one_batch(pair: Pair) -> None:
    tasks = [await pair.start(pair.pose)]
    tasks += await pair.add(pair.detect, 1, 2, 3, 4, 5)
    assert pair.detect.queued_cost == 5, "nothing leaves while the thread is at work"
    pair.model.gate.set()
    await asyncio.gather(*tasks)
    assert pair.model.batches == [("pose", [100]), ("detect", [1, 2, 3, 4, 5])]


async def test_priority_goes_before_turns(worker: OwnerThread) -> None:
    pair = Pair(worker, max_cost=1)
    tasks = [await pair.start(pair.pose)]
    tasks += await pair.add(pair.detect, 1, priority=2)
    tasks += await pair.add(pair.pose, 2, 3, priority=1)
    tasks += await pair.add(pair.detect, 4, priority=0)
    pair.model.gate.set()
    await asyncio.gather(*tasks)
    assert [items for _, items in pair.model.batches] == [[100], [4], [2], [3], [1]]


async def test_they_take_turns(worker: OwnerThread) -> None:
    pair = Pair(worker, max_cost=1)
    tasks = [await pair.start(pair.pose)]
    tasks += await pair.add(pair.pose, 101, 102)
    tasks += await pair.add(pair.detect, 1, 2, 3)
    pair.model.gate.set()
    await asyncio.gather(*tasks)
    order = [name for name, _ in pair.model.batches]
    assert order == ["pose", "detect", "pose", "detect", "pose", "detect"]


async def test_the_wait_counts_until_the_thread_begins(pair: Pair) -> None:
    running = await pair.start(pair.pose)
    (waiting,) = await pair.add(pair.detect, 1)
    await asyncio.sleep(0.05)  # the time that is told
    pair.model.gate.set()
    await running
    assert (await waiting).waited_s >= 0.05
    assert max(pair.ear.waits) >= 0.05


async def test_expired_and_cancelled_work_of_the_other_never_runs(pair: Pair) -> None:
    running = await pair.start(pair.pose)
    with rejected(ErrorCode.DEADLINE_EXCEEDED):
        await pair.detect.submit(1, turn=Turn(deadline=time.monotonic() + 0.02))
    (gone,) = await pair.add(pair.detect, 2)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    pair.model.gate.set()
    await running
    assert (await pair.detect.submit(3)).value == 3
    assert pair.model.batches == [("pose", [100]), ("detect", [3])]
    assert pair.ear.sheds == ["expired", "cancelled"]


async def test_work_given_up_between_loop_and_thread_is_skipped(pair: Pair) -> None:
    """A call that is not a batch holds the thread, so that the batch lies in its queue."""
    pair.model.gate.set()
    hold = threading.Event()
    pair.worker.call(lambda: hold.wait(100))
    tasks = [asyncio.create_task(pair.detect.submit(item)) for item in range(4)]
    late = asyncio.create_task(pair.detect.submit(4, turn=Turn(deadline=time.monotonic() + 1)))
    while pair.detect.queued_cost or not pair.ear.batches:
        await asyncio.sleep(0)
    tasks[1].cancel()
    assert isinstance((await asyncio.gather(late, return_exceptions=True))[0], ServiceError)
    hold.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert pair.model.batches == [("detect", [0, 2, 3])]
    assert isinstance(done[1], asyncio.CancelledError)
    assert [one.value for one in done if not isinstance(one, BaseException)] == [0, 2, 3]
    assert pair.ear.sheds == ["cancelled", "expired"]


async def test_a_batch_that_nobody_wants_is_not_run(pair: Pair) -> None:
    pair.model.gate.set()
    hold = threading.Event()
    pair.worker.call(lambda: hold.wait(100))
    with pytest.raises(ServiceError):
        await pair.detect.submit(1, turn=Turn(deadline=time.monotonic() + 0.02))
    hold.set()
    assert (await pair.pose.submit(2)).value == 2
    assert pair.model.batches == [("pose", [2])]


async def test_waiting_for_company_keeps_nobody_else_from_the_thread(worker: OwnerThread) -> None:
    pair = Pair(worker, max_cost=2, max_wait_s=100.0)
    pair.model.gate.set()
    with pair.detect.expecting():
        (alone,) = await pair.add(pair.detect, 1)
        await asyncio.gather(pair.pose.submit(1), pair.pose.submit(2))
        assert pair.model.batches == [("pose", [1, 2])]
        await asyncio.gather(*(await pair.add(pair.detect, 2)), alone)
    assert pair.model.batches[1] == ("detect", [1, 2])


async def test_the_forecast_knows_the_wait_for_the_other(worker: OwnerThread) -> None:
    pair = Pair(worker, max_cost=1)
    running = await pair.start(pair.pose)
    waiting = await pair.add(pair.detect, 1)
    await asyncio.sleep(0.05)
    pair.model.gate.set()
    await asyncio.gather(running, *waiting)
    pair.model.gate.clear()
    pair.model.entered.clear()
    running = await pair.start(pair.detect)
    assert pair.detect.expected_wait_s >= 0.05
    pair.model.gate.set()
    await running


async def test_both_drain(worker: OwnerThread) -> None:
    pair = Pair(worker, max_wait_s=100.0)
    pair.model.gate.set()
    with pair.detect.expecting(), pair.pose.expecting():
        tasks = [*await pair.add(pair.detect, 1), *await pair.add(pair.pose, 2)]
        await pair.detect.drain()
        await pair.pose.drain()
    await asyncio.gather(*tasks)
    assert pair.model.batches == [("detect", [1]), ("pose", [2])]
    assert pair.ear.batches == [(1, "drain"), (1, "drain")], "no wait for company has passed"


async def test_a_lost_thread_fails_both(pair: Pair) -> None:

    def die() -> None:
        assert pair.model.gate.wait(100)
        raise SystemExit

    pair.worker.call(die)
    tasks = [*await pair.add(pair.detect, 1), *await pair.add(pair.pose, 2)]
    pair.model.gate.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(error, "code", None) for error in done] == [ErrorCode.UNAVAILABLE] * 2
