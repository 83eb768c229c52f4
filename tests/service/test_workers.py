"""The bounded pool: what it refuses, drops and tells."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from service.errors import ErrorCode
from service.scheduling.turns import Turn
from service.scheduling.work_pool import WorkPool
from tests.service.conftest import rejected
from tests.service.doubler import Ear

pytestmark = pytest.mark.anyio


class Held:
    """Work that waits at a gate; counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.entered = threading.Event()
        self.gate = threading.Event()

    def __call__(self) -> str:
        self.begun += 1
        self.entered.set()
        assert self.gate.wait(100)
        return "done"


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def pool(ear: Ear) -> Iterator[WorkPool]:
    made = WorkPool("decode", threads=1, max_waiting=2, observer=ear)
    yield made
    made.stop()


@pytest.fixture
def held() -> Iterator[Held]:
    work = Held()
    yield work
    work.gate.set()


async def occupied(pool: WorkPool, held: Held) -> asyncio.Task[str]:
    """The pool's only thread holds work at the gate."""
    task = asyncio.create_task(pool.run(held))
    await asyncio.to_thread(held.entered.wait, 100)
    return task


async def queued(pool: WorkPool, held: Held, count: int = 1) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(pool.run(held)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_results_and_errors_come_back(pool: WorkPool) -> None:
    assert await pool.run(lambda: 7) == 7
    with pytest.raises(KeyError):
        await pool.run(lambda: {}["missing"])
    with pytest.raises(TimeoutError):  # the work's own, not taken for a passed deadline
        await pool.run(_times_out, turn=Turn(deadline=time.monotonic() + 10))


def _times_out() -> None:
    raise TimeoutError


async def test_work_that_expires_in_the_queue_is_not_begun(
    pool: WorkPool, held: Held, ear: Ear
) -> None:
    first = await occupied(pool, held)
    with rejected(ErrorCode.DEADLINE_EXCEEDED):
        await pool.run(held, turn=Turn(deadline=time.monotonic() + 0.03))
    assert ear.sheds == ["expired"]
    held.gate.set()
    await first
    assert await pool.run(lambda: 1) == 1
    assert held.begun == 1


async def test_the_thread_looks_at_the_clock_itself(pool: WorkPool, held: Held, ear: Ear) -> None:
    """The loop is too busy to tell of the deadline before the thread comes to the work."""
    first = await occupied(pool, held)
    late = asyncio.create_task(pool.run(held, turn=Turn(deadline=time.monotonic() + 0.3)))
    await asyncio.sleep(0)
    time.sleep(0.4)
    held.gate.set()
    while len(ear.waits) < 2:
        time.sleep(0.001)
    with rejected(ErrorCode.DEADLINE_EXCEEDED):
        await late
    assert ear.sheds == ["expired"]
    await first
    assert held.begun == 1


async def test_cancelled_work_is_not_begun(pool: WorkPool, held: Held, ear: Ear) -> None:
    first = await occupied(pool, held)
    (gone,) = await queued(pool, held)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert ear.sheds == ["cancelled"]
    held.gate.set()
    await first
    assert await pool.run(lambda: 1) == 1
    assert held.begun == 1
    assert pool.waiting == 0


async def test_stop_answers_what_waits_and_refuses_what_comes(pool: WorkPool, held: Held) -> None:
    first = await occupied(pool, held)
    (waiting,) = await queued(pool, held)
    pool.stop()
    for work in (waiting, pool.run(held)):
        with rejected(ErrorCode.UNAVAILABLE):
            await work
    held.gate.set()
    assert await first == "done", "what runs may finish"
    assert held.begun == 1
    assert pool.waiting == 0


async def test_a_cancelled_caller_stays_cancelled_when_the_pool_stops(
    pool: WorkPool, held: Held
) -> None:
    first = await occupied(pool, held)
    (gone,) = await queued(pool, held)
    pool.stop()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    held.gate.set()
    await first
