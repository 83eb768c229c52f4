"""One stream by itself: when it counts as idle, and when not."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import ErrorCode, ServiceError
from service.scheduling.budget import ByteBudget
from service.streams.sessions import ReceivedFrame, Session
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

IDLE_S = 0.02


async def at_once(frame: ReceivedFrame) -> bytes:
    return frame.image


async def slowly(frame: ReceivedFrame) -> bytes:
    await asyncio.sleep(5 * IDLE_S)
    return frame.image


def session_of(estimate: object = at_once, idle_s: float = IDLE_S) -> Session[bytes]:
    budget = ByteBudget(2**20, "frames", lambda: None)
    return Session(estimate, Metrics(), budget, idle_s)  # type: ignore[arg-type]


async def answered(session: Session[bytes]) -> object:
    answer = await session.answer()
    assert answer is not None
    return answer.outcome


async def assert_ended_as_idle(session: Session[bytes]) -> None:
    for _ in range(2):  # and it stays ended
        with pytest.raises(ServiceError, match=r"^no frame came for 0\.02 s$") as ended:
            await session.answer()
        assert ended.value.code is ErrorCode.DEADLINE_EXCEEDED


async def test_a_stream_without_frames_ends() -> None:
    await assert_ended_as_idle(session_of())


async def test_a_stream_that_falls_silent_ends() -> None:
    session = session_of()
    session.offer(b"one")
    assert await answered(session) == b"one"
    await assert_ended_as_idle(session)


async def test_a_slow_frame_and_one_that_waits_are_not_idle() -> None:
    session = session_of(slowly)
    session.offer(b"one")
    first = asyncio.create_task(answered(session))
    await asyncio.sleep(0)
    session.offer(b"two")
    assert await first == b"one"
    await asyncio.sleep(2 * IDLE_S)  # as a client that is slow to take its answer
    assert await answered(session) == b"two"


async def test_a_stream_that_was_finished_is_not_idle() -> None:
    session = session_of(slowly)
    session.offer(b"last")
    session.finish()
    assert await answered(session) == b"last"
    assert await session.answer() is None


async def test_a_frame_in_the_very_moment_still_counts() -> None:
    session = session_of(idle_s=0)
    answer = asyncio.create_task(answered(session))
    await asyncio.sleep(0)  # now it waits, and the end of its wait is due at the next turn
    session.offer(b"just in time")
    assert await answer == b"just in time"
