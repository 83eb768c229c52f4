"""The slot for the next frame: when it counts as idle and when not."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import ErrorCode
from service.scheduling.budget import ByteBudget
from service.streams.slot import Frame, FrameSlot
from tests.service.conftest import rejected

pytestmark = pytest.mark.anyio

IDLE_S = 0.02


def slot_of(idle_s: float = IDLE_S) -> FrameSlot:
    return FrameSlot(ByteBudget(2**20, "frames", lambda: None), idle_s)


async def assert_closed_as_idle(slot: FrameSlot) -> None:
    for _ in range(2):  # and it stays closed
        with rejected(ErrorCode.DEADLINE_EXCEEDED, match=r"^no frame came for 0\.02 s$"):
            await slot.take()


async def test_a_slot_whose_sender_falls_silent_is_closed() -> None:
    slot = slot_of()
    slot.offer(only := Frame(b"one", 1))
    assert await slot.take() is only
    await assert_closed_as_idle(slot)


async def test_a_slow_consumer_is_not_idle() -> None:
    slot = slot_of()
    slot.offer(Frame(b"one", 1))
    assert await slot.take() is not None
    await asyncio.sleep(2 * IDLE_S)  # while it processes the first
    slot.offer(second := Frame(b"two", 2))
    await asyncio.sleep(2 * IDLE_S)
    assert await slot.take() is second


async def test_a_frame_at_the_moment_of_the_end_still_counts() -> None:
    slot = slot_of(idle_s=0)
    taking = asyncio.create_task(slot.take())
    await asyncio.sleep(0)  # now it waits, and the end of its wait is due at the next turn
    slot.offer(in_time := Frame(b"just in time", 1))
    assert await taking is in_time
