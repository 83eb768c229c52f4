"""One caller floods, others are slow: who gets what, in each queue and in the whole service."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from statistics import median

import pytest

from sdpose_client import AsyncGrpcPoseClient, AsyncRestPoseClient
from service.errors import ErrorCode, ServiceError
from service.scheduling.budget import ByteBudget
from service.scheduling.fair_queue import FairOrder
from service.scheduling.shares import FairBound
from service.scheduling.turns import Turn
from service.scheduling.work_pool import WorkPool
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import ONCE, Service, serving
from tests.service.doubler import Stand

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("room", "shares", "expected"), [(256, 1, [205]), (90, 2, [40, 40]), (2, 1, [2]), (1, 1, [1])]
)
def test_nobody_fills_a_room_alone(room: int, shares: int, expected: list[int]) -> None:
    bound = FairBound(room)
    held = [0] * shares
    while any(bound.fits(share) for share in range(shares)):
        for share in range(shares):
            if bound.fits(share):
                bound.take(share)
                held[share] += 1
    assert held == expected
    assert bound.used == sum(expected)


def test_the_last_of_a_bound_is_for_a_share_that_holds_nothing() -> None:
    bound = FairBound(5)
    bound.take("flood", 4)
    assert not bound.fits("flood")
    assert bound.fits("small")
    assert not bound.fits("small", 2), "as much as is free"
    bound.take(None)
    assert not bound.fits("small")
    bound.give_back("flood", 4)
    assert (bound.used, bound.free) == (1, 4)
    assert not bound._held, "a share that holds nothing is forgotten"


def test_what_no_caller_holds_is_no_share_of_any() -> None:
    bound = FairBound(10)
    bound.take(None, 9)
    assert bound.fits(None)
    assert bound.fits("a")


def test_shares_get_equal_work_whatever_they_queued() -> None:
    """Costs differ; a share that queued 10 times as much gets no more than the others."""
    dice = random.Random(1)
    order = FairOrder()
    queue = [
        (order.queued(share, cost), share, cost)
        for share, count in (("flood", 1000), ("a", 100), ("b", 100))
        for cost in (dice.choice((1, 2, 5)) for _ in range(count))
    ]
    queue.sort(key=lambda each: each[0])
    served = {"flood": 0, "a": 0, "b": 0}
    for start, share, cost in queue:
        order.begun(start)
        served[share] += cost
        if min(served.values()) > 100:
            break
    assert max(served.values()) - min(served.values()) <= 10  # two items, at most


def test_who_comes_late_owes_nothing_and_is_owed_nothing() -> None:
    order = FairOrder()
    for _ in range(50):
        order.begun(order.queued("old", 1))
    new = order.queued("new", 1)
    assert new == order.start("old") - 1 or new == order.start("old")
    for _ in range(3):
        order.queued("gone", 100)
        order.withdrawn("gone", 100)
    assert order.start("gone") <= order.start("old")


async def test_a_batcher_goes_round_by_share_within_a_priority(stand: Stand) -> None:
    box = stand.box(max_cost=2)
    first = await stand.held(box)
    asked = [(item, "flood", 1) for item in range(6)]
    asked += [(10, "a", 1), (11, "a", 1), (20, "b", 1), (30, "flood", 0)]
    rest = []
    for item, share, priority in asked:
        rest.append(asyncio.create_task(box.submit(item, turn=Turn(share, priority))))
        await asyncio.sleep(0)
    stand.doubler.gate.set()
    await asyncio.gather(first, *rest)
    order = [item for items, _ in stand.doubler.batches[1:] for item in items]
    assert order == [30, 0, 10, 20, 1, 11, 2, 3, 4, 5]


async def test_a_full_batcher_still_takes_who_has_nothing_there(stand: Stand) -> None:
    box = stand.box(max_queue_cost=10)
    first = await stand.held(box)
    flood = [asyncio.create_task(box.submit(item, turn=Turn("flood"))) for item in range(12)]
    await asyncio.sleep(0)
    small = asyncio.create_task(box.submit(100, turn=Turn("small")))
    await asyncio.sleep(0)
    stand.doubler.gate.set()
    assert (await small).value == 200
    told = await asyncio.gather(first, *flood, return_exceptions=True)
    refused = [error for error in told if isinstance(error, ServiceError)]
    assert len(refused) == 4
    assert {error.code for error in refused} == {ErrorCode.OVERLOADED}


async def test_a_forecast_counts_only_what_goes_before(stand: Stand) -> None:
    box = stand.box(max_cost=1)
    box._seconds_per_batch = 1.0
    first = await stand.held(box)
    flood = [asyncio.create_task(box.submit(item, turn=Turn("flood"))) for item in range(9)]
    await asyncio.sleep(0)
    due = time.monotonic() + 4
    small = asyncio.create_task(box.submit(100, turn=Turn("small", deadline=due)))
    with pytest.raises(ServiceError, match="too long for this deadline"):
        await box.submit(9, turn=Turn("flood", deadline=due))
    stand.doubler.gate.set()
    assert (await small).value == 200
    await asyncio.gather(first, *flood)


@pytest.fixture
def pool() -> Iterator[WorkPool]:
    made = WorkPool("decode", threads=1, max_waiting=20)
    yield made
    made.stop()


async def test_a_pool_goes_round_by_share(pool: WorkPool) -> None:
    gate, entered, done = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        entered.set()
        assert gate.wait(100)

    held_up = asyncio.create_task(pool.run(first))
    await asyncio.to_thread(entered.wait, 100)
    rest = []
    for name in ("flood 1", "flood 2", "flood 3", "a 1", "a 2", "b 1"):
        work = pool.run(lambda name=name: done.append(name), Turn(name[0]))  # type: ignore[misc]
        rest.append(asyncio.create_task(work))
        await asyncio.sleep(0)
    rest[1].cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(held_up, *rest, return_exceptions=True)
    assert done[:3] == ["flood 1", "a 1", "b 1"]
    assert sorted(done) == sorted(["flood 1", "flood 3", "a 1", "a 2", "b 1"])


def test_memory_is_shared_too() -> None:
    refused: list[int] = []
    budget = ByteBudget(1000, "things", lambda: refused.append(1))
    taken = 0
    while not refused:
        with suppress(ServiceError):
            budget.take(50, held=1, share="flood")
            taken += 50
    assert 800 <= taken < 900
    budget.take(50, share="small")
    budget.give_back(taken, share="flood")
    budget.give_back(50, share="small")
    assert budget.used == 0
    budget.take(5000, share="alone")  # an idle service rejects no one


async def flooding(
    fake: FakeEstimator,
    client: AsyncGrpcPoseClient,
    until: asyncio.Event,
    waits: list[int],
    refused: list[ServiceError],
) -> None:
    while not until.is_set():
        before = len(fake.detected)
        try:
            await client.estimate(PNG)
        except ServiceError as error:
            if error.code is not ErrorCode.OVERLOADED:
                raise
            refused.append(error)
            await asyncio.sleep(0.01)
        else:
            waits.append(len(fake.detected) - before)


async def slow_one(fake: FakeEstimator, service: Service, key: str, waits: list[int]) -> None:
    async with AsyncRestPoseClient(service.url, api_key=key, retry=ONCE) as client:
        for _ in range(8):
            before = len(fake.detected)
            await client.estimate(PNG)
            waits.append(len(fake.detected) - before)
            await asyncio.sleep(0.05)


async def test_ten_slow_clients_beside_one_that_floods() -> None:
    """None of the slow ones is refused or waits its turn behind the flood; told in batches."""
    keys = [f"slow-{number}" for number in range(10)]
    fake = FakeEstimator(delay_s=0.02)
    # Of a queue of 64 (a quarter) a flood takes 51: ten others at once find a place.
    limits = {"max_batch": 4, "max_requests": 256}
    # On a busy machine a forecast would refuse them as late.
    hour = dict.fromkeys(("max_deadline_ms", "default_deadline_ms", "max_queue_ms"), 3_600_000)
    async with serving(fake, api_keys=",".join([*keys, "flood"]), **limits, **hour) as service:
        stop = asyncio.Event()
        waits, flood_waits, refused = list[int](), list[int](), list[ServiceError]()
        async with AsyncGrpcPoseClient(service.target, api_key="flood", retry=ONCE) as client:
            flood = [
                asyncio.create_task(flooding(fake, client, stop, flood_waits, refused))
                for _ in range(80)
            ]
            while not refused:  # the flood meets its bound
                await asyncio.sleep(0.01)
            await asyncio.gather(*(slow_one(fake, service, key, waits) for key in keys))
            stop.set()
            await asyncio.gather(*flood)
    assert len(waits) == 80, "every slow request was answered"
    # With 4 a batch and 10 others a turn comes after 3 batches or so; the flood queues 13 deep.
    assert median(waits) < 0.6 * median(flood_waits)
    assert len(flood_waits) > 20
