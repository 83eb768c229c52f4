"""The batcher with a plain function as its model: items are numbers, results their doubles."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from service.errors import ErrorCode
from service.scheduling.batch_run import BatchLimits, Done
from service.scheduling.turns import Turn
from tests.service.conftest import rejected
from tests.service.doubler import Stand

pytestmark = pytest.mark.anyio


async def test_items_of_one_moment_share_a_batch(stand: Stand) -> None:
    box = stand.box()
    done = await asyncio.gather(*(box.submit(item) for item in range(6)))
    assert [one.value for one in done] == [0, 2, 4, 6, 8, 10]
    assert [items for items, _ in stand.doubler.batches] == [[0, 1, 2, 3], [4, 5]]
    assert stand.ear.batches == [(4, "full"), (2, "idle")]
    assert stand.ear.depths[-1] == 0
    assert len(stand.ear.waits) == 6


async def test_cost_fills_a_batch_and_a_dear_item_goes_alone(stand: Stand) -> None:
    box = stand.box()
    costs = [3, 2, 2, 9]
    await asyncio.gather(*(box.submit(item, cost=cost) for item, cost in enumerate(costs)))
    assert [items for items, _ in stand.doubler.batches] == [[0], [1, 2], [3]]
    assert [cost for cost, _ in stand.ear.batches] == [3, 4, 9]


async def test_groups_never_share_a_batch(stand: Stand) -> None:
    box = stand.box()
    await asyncio.gather(*(box.submit(item, group="ab"[item % 2]) for item in range(4)))
    assert stand.doubler.batches == [([0, 2], "a"), ([1, 3], "b")]


async def test_a_lone_item_never_waits(stand: Stand) -> None:
    box = stand.box(max_cost=2, max_wait_s=30)
    assert (await box.submit(1)).value == 2
    assert stand.ear.batches == [(1, "idle")]


async def test_waits_for_expected_company_up_to_the_limit(stand: Stand) -> None:
    box = stand.box(max_cost=2, max_wait_s=0.05)
    with box.expecting():
        alone = await box.submit(1)
    assert alone.waited_s >= 0.045
    assert stand.ear.batches == [(1, "wait")]


async def test_expected_company_shares_the_batch(stand: Stand) -> None:
    box = stand.box(max_cost=8, max_wait_s=30)

    async def slow() -> None:
        with box.expecting():
            await asyncio.sleep(0.01)
            assert not stand.ear.batches
        await box.submit(2)

    await asyncio.gather(slow(), box.submit(1))
    assert stand.doubler.batches == [([1, 2], None)]
    assert stand.ear.batches == [(2, "idle")]


async def test_company_that_fails_to_come_is_not_waited_for(stand: Stand) -> None:
    box = stand.box(max_wait_s=30)

    async def broken() -> None:
        with box.expecting():
            await asyncio.sleep(0.01)
            assert not stand.ear.batches
            raise ValueError("does not decode")

    done = asyncio.gather(box.submit(1), broken(), return_exceptions=True)
    answer, error = await done
    assert isinstance(answer, Done)
    assert isinstance(error, ValueError)
    assert stand.ear.batches == [(1, "idle")]


async def test_announced_company_is_waited_for_until_it_is_there(stand: Stand) -> None:
    box = stand.box(max_cost=8, max_wait_s=30)

    async def slow() -> None:
        arrived = box.announce()
        await asyncio.sleep(0.01)
        assert not stand.ear.batches
        arrived()
        with box.expecting():  # in the same turn, as it is decoded
            await asyncio.sleep(0.01)
            assert not stand.ear.batches
        await box.submit(2)
        arrived()  # nothing more to end

    await asyncio.gather(slow(), box.submit(1))
    assert stand.ear.batches == [(2, "idle")]


async def test_an_announced_item_that_never_comes_holds_batches_for_the_longest_wait_only(
    stand: Stand,
) -> None:
    box = stand.box(max_cost=8, max_wait_s=0.3)
    box.announce()
    await asyncio.sleep(0.01)
    await box.submit(1)
    await box.submit(2)
    # "wait" would be the end of a whole wait of its own.
    assert stand.ear.batches == [(1, "idle"), (1, "idle")]
    assert stand.ear.waits[0] > 0.2


async def test_expected_company_does_not_hold_a_full_batch(stand: Stand) -> None:
    box = stand.box(max_cost=2, max_wait_s=30)
    with box.expecting():
        await asyncio.gather(box.submit(1), box.submit(2))
    assert stand.ear.batches == [(2, "full")]


async def test_passed_deadline_is_not_queued(stand: Stand) -> None:
    box = stand.box()
    with rejected(ErrorCode.DEADLINE_EXCEEDED):
        await box.submit(1, turn=Turn(deadline=time.monotonic() - 1))
    assert stand.doubler.batches == []


async def test_forecast_refuses_what_would_come_late(stand: Stand) -> None:
    box = stand.box(max_cost=1)
    stand.doubler.gate.clear()
    threading.Timer(0.1, stand.doubler.gate.set).start()
    await box.submit(0)  # teaches the pace: a tenth of a second an item
    first = await stand.held(box)
    rest = [asyncio.create_task(box.submit(item)) for item in range(50)]
    await asyncio.sleep(0)
    with rejected(ErrorCode.OVERLOADED) as refused:
        await box.submit(6, turn=Turn(deadline=time.monotonic() + 3))
    assert refused.value.retry_after_s
    assert stand.ear.sheds == ["predicted_late"]
    stand.doubler.gate.set()
    await asyncio.gather(first, *rest)


async def test_wrong_number_of_results_is_an_error(stand: Stand) -> None:
    stand.doubler.short = {1}
    box = stand.box()
    done = await asyncio.gather(box.submit(0), box.submit(1), return_exceptions=True)
    assert isinstance(done[1], RuntimeError)
    assert "gave 0 results for 1 items" in str(done[1])
    assert not isinstance(done[0], BaseException)
    assert done[0].value == 0


@pytest.mark.parametrize(("cost", "wait", "queue"), [(0, 0.0, 1), (1, -1.0, 1), (1, 0.0, 0)])
async def test_limits_must_be_positive(cost: int, wait: float, queue: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        BatchLimits(cost, wait, queue)


async def test_close_fails_what_waits_and_refuses_newcomers(stand: Stand) -> None:
    box = stand.box()
    first = await stand.held(box)
    gone, waiting = (asyncio.create_task(box.submit(item)) for item in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    box.close()
    with rejected(ErrorCode.UNAVAILABLE):
        await waiting
    with rejected(ErrorCode.UNAVAILABLE):
        await box.submit(3)
    stand.doubler.gate.set()
    await first
    assert stand.doubler.batches == [([1000], None)]
