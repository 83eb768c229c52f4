"""The batcher with a plain function as its model: items are numbers, results their doubles."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from service.errors import ErrorCode, ServiceError
from service.scheduling.batch_run import BatchLimits, Done
from service.scheduling.owner_thread import OwnerThread
from service.scheduling.turns import Turn
from tests.service.doubler import Doubler, Ear, batcher, held

pytestmark = pytest.mark.anyio


async def test_items_of_one_moment_share_a_batch(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear)
    done = await asyncio.gather(*(box.submit(item) for item in range(6)))
    assert [one.value for one in done] == [0, 2, 4, 6, 8, 10]
    assert [items for items, _ in doubler.batches] == [[0, 1, 2, 3], [4, 5]]
    assert ear.batches == [(4, "full"), (2, "idle")]
    assert ear.depths[-1] == 0
    assert len(ear.waits) == 6


async def test_cost_fills_a_batch_and_a_dear_item_goes_alone(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear)
    costs = [3, 2, 2, 9]
    await asyncio.gather(*(box.submit(item, cost=cost) for item, cost in enumerate(costs)))
    assert [items for items, _ in doubler.batches] == [[0], [1, 2], [3]]
    assert [cost for cost, _ in ear.batches] == [3, 4, 9]


async def test_groups_never_share_a_batch(doubler: Doubler, worker: OwnerThread, ear: Ear) -> None:
    box = batcher(doubler, worker, ear)
    await asyncio.gather(*(box.submit(item, group="ab"[item % 2]) for item in range(4)))
    assert doubler.batches == [([0, 2], "a"), ([1, 3], "b")]


async def test_priority_goes_first(doubler: Doubler, worker: OwnerThread, ear: Ear) -> None:
    box = batcher(doubler, worker, ear, max_cost=1)
    first = await held(box, doubler)
    rest = [
        asyncio.create_task(box.submit(item, turn=Turn(priority=2 - item))) for item in range(3)
    ]
    await asyncio.sleep(0)
    doubler.gate.set()
    await asyncio.gather(first, *rest)
    assert [items for items, _ in doubler.batches] == [[1000], [2], [1], [0]]


async def test_a_lone_item_never_waits(doubler: Doubler, worker: OwnerThread, ear: Ear) -> None:
    box = batcher(doubler, worker, ear, max_cost=2, max_wait_s=30)
    assert (await box.submit(1)).value == 2
    assert ear.batches == [(1, "idle")]


async def test_waits_for_expected_company_up_to_the_limit(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear, max_cost=2, max_wait_s=0.05)
    with box.expecting():
        alone = await box.submit(1)
    assert alone.waited_s >= 0.045
    assert ear.batches == [(1, "wait")]


async def test_expected_company_shares_the_batch(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear, max_cost=8, max_wait_s=30)

    async def slow() -> None:
        with box.expecting():
            await asyncio.sleep(0.01)
            assert not ear.batches
        await box.submit(2)

    await asyncio.gather(slow(), box.submit(1))
    assert doubler.batches == [([1, 2], None)]
    assert ear.batches == [(2, "idle")]


async def test_company_that_fails_to_come_is_not_waited_for(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear, max_wait_s=30)

    async def broken() -> None:
        with box.expecting():
            await asyncio.sleep(0.01)
            assert not ear.batches
            raise ValueError("does not decode")

    done = asyncio.gather(box.submit(1), broken(), return_exceptions=True)
    answer, error = await done
    assert isinstance(answer, Done)
    assert isinstance(error, ValueError)
    assert ear.batches == [(1, "idle")]


async def test_announced_company_is_waited_for_until_it_is_there(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear, max_cost=8, max_wait_s=30)

    async def slow() -> None:
        arrived = box.announce()
        await asyncio.sleep(0.01)
        assert not ear.batches
        arrived()
        with box.expecting():  # in the same turn, as it is decoded
            await asyncio.sleep(0.01)
            assert not ear.batches
        await box.submit(2)
        arrived()  # nothing more to end

    await asyncio.gather(slow(), box.submit(1))
    assert ear.batches == [(2, "idle")]


async def test_an_announced_item_that_never_comes_holds_batches_for_the_longest_wait_only(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear, max_cost=8, max_wait_s=0.3)
    box.announce()
    await asyncio.sleep(0.01)
    await box.submit(1)
    await box.submit(2)
    # "wait" would be the end of a whole wait of its own.
    assert ear.batches == [(1, "idle"), (1, "idle")]
    assert ear.waits[0] > 0.2


async def test_expected_company_does_not_hold_a_full_batch(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear, max_cost=2, max_wait_s=30)
    with box.expecting():
        await asyncio.gather(box.submit(1), box.submit(2))
    assert ear.batches == [(2, "full")]


async def test_full_queue_refuses(doubler: Doubler, worker: OwnerThread, ear: Ear) -> None:
    box = batcher(doubler, worker, ear, max_queue_cost=2)
    first = await held(box, doubler)
    rest = [asyncio.create_task(box.submit(item)) for item in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as refused:
        await box.submit(3)
    assert refused.value.code is ErrorCode.OVERLOADED
    assert ear.sheds == ["queue_full"]
    doubler.gate.set()
    await asyncio.gather(first, *rest)


async def test_deadline_ends_the_wait_by_itself(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear)
    first = await held(box, doubler)
    with pytest.raises(ServiceError) as late:
        await box.submit(1, turn=Turn(deadline=time.monotonic() + 0.05))
    assert late.value.code is ErrorCode.DEADLINE_EXCEEDED
    assert not first.done(), "told by the timer, not when the worker came back"
    assert box.queued_cost == 0
    assert ear.sheds == ["expired"]
    doubler.gate.set()
    await first
    assert doubler.batches == [([1000], None)], "the late item was never run"


async def test_deadline_ends_even_work_that_runs(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear)
    doubler.gate.clear()
    with pytest.raises(ServiceError) as late:
        await box.submit(1, turn=Turn(deadline=time.monotonic() + 0.03))
    assert late.value.code is ErrorCode.DEADLINE_EXCEEDED
    doubler.gate.set()
    assert (await box.submit(2)).value == 4


async def test_passed_deadline_is_not_queued(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear)
    with pytest.raises(ServiceError) as late:
        await box.submit(1, turn=Turn(deadline=time.monotonic() - 1))
    assert late.value.code is ErrorCode.DEADLINE_EXCEEDED
    assert doubler.batches == []


async def test_forecast_refuses_what_would_come_late(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear, max_cost=1)
    doubler.gate.clear()
    threading.Timer(0.1, doubler.gate.set).start()
    await box.submit(0)  # teaches the pace: a tenth of a second an item
    first = await held(box, doubler)
    rest = [asyncio.create_task(box.submit(item)) for item in range(50)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as refused:
        await box.submit(6, turn=Turn(deadline=time.monotonic() + 3))
    assert refused.value.code is ErrorCode.OVERLOADED
    assert refused.value.retry_after_s
    assert ear.sheds == ["predicted_late"]
    doubler.gate.set()
    await asyncio.gather(first, *rest)


async def test_cancelled_work_leaves_the_queue(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear)
    first = await held(box, doubler)
    gone = asyncio.create_task(box.submit(1))
    await asyncio.sleep(0)
    assert box.queued_cost == 1
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert box.queued_cost == 0
    assert ear.sheds == ["cancelled"]
    doubler.gate.set()
    await first
    assert doubler.batches == [([1000], None)]


async def test_poison_fails_alone(
    doubler: Doubler, worker: OwnerThread, ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    doubler.poison = {2}
    box = batcher(doubler, worker, ear)
    done = await asyncio.gather(*(box.submit(item) for item in range(4)), return_exceptions=True)
    assert isinstance(done[2], ValueError)
    assert [one.value for one in done if not isinstance(one, BaseException)] == [0, 2, 6]
    assert [items for items, _ in doubler.batches] == [[0, 1, 2, 3], [0], [1], [2], [3]]
    assert "trying one by one" in caplog.text


async def test_wrong_number_of_results_is_an_error(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    doubler.short = {1}
    box = batcher(doubler, worker, ear)
    done = await asyncio.gather(box.submit(0), box.submit(1), return_exceptions=True)
    assert isinstance(done[1], RuntimeError)
    assert "gave 0 results for 1 items" in str(done[1])
    assert not isinstance(done[0], BaseException)
    assert done[0].value == 0


async def test_lost_worker_fails_everyone_and_refuses_newcomers(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    doubler.deadly = {7}
    box = batcher(doubler, worker, ear, max_cost=1)
    done = await asyncio.gather(box.submit(7), box.submit(8), return_exceptions=True)
    assert [getattr(error, "code", None) for error in done] == [ErrorCode.UNAVAILABLE] * 2
    assert worker.lost
    with pytest.raises(ServiceError) as refused:
        await box.submit(9)
    assert refused.value.code is ErrorCode.UNAVAILABLE


async def test_drain_finishes_what_is_queued(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear, max_cost=2, max_wait_s=30)
    with box.expecting():
        waiting = [asyncio.create_task(box.submit(item)) for item in range(3)]
        await asyncio.sleep(0.01)
        await box.drain()
    assert [task.result().value for task in waiting] == [0, 2, 4]
    assert [reason for _, reason in ear.batches] == ["full", "drain"]


async def test_close_fails_what_waits_and_refuses_newcomers(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear)
    first = await held(box, doubler)
    waiting = asyncio.create_task(box.submit(1))
    await asyncio.sleep(0)
    box.close()
    with pytest.raises(ServiceError) as stopped:
        await waiting
    assert stopped.value.code is ErrorCode.UNAVAILABLE
    with pytest.raises(ServiceError) as refused:
        await box.submit(2)
    assert refused.value.code is ErrorCode.UNAVAILABLE
    doubler.gate.set()
    await first
    assert doubler.batches == [([1000], None)]


async def test_every_answer_reaches_its_own_caller(
    doubler: Doubler, worker: OwnerThread, ear: Ear
) -> None:
    box = batcher(doubler, worker, ear, max_cost=7, max_queue_cost=5000)
    done = await asyncio.gather(
        *(box.submit(item, cost=1 + item % 3, group=item % 2) for item in range(2000))
    )
    assert [one.value for one in done] == [2 * item for item in range(2000)]
    assert max(cost for cost, _ in ear.batches) <= 7


@pytest.mark.parametrize(("cost", "wait", "queue"), [(0, 0.0, 1), (1, -1.0, 1), (1, 0.0, 0)])
async def test_limits_must_be_positive(cost: int, wait: float, queue: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        BatchLimits(cost, wait, queue)
