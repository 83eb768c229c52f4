"""The gRPC clients: streams, TLS, and what no message can say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TypeVar

import pytest

from sdpose_client import (
    Ask,
    Box,
    ErrorCode,
    GrpcPoseClient,
    PoseAnswer,
    ServiceError,
    StreamAnswer,
    StreamAsk,
    StreamFrame,
)
from tests.fakes import FakeEstimator, marked_png
from tests.service.conftest import Service, rejected, serving, wait_until
from tests.service.stream_clients import mark_of

pytestmark = pytest.mark.anyio
T = TypeVar("T")
AS_ESTIMATED = StreamAsk(tracking=False)
"""Answers show the marks of their images only where no filter steadies the joints."""


class Paced:
    """Frames that come one after the other's answer, as from a camera that waits."""

    def __init__(self, frames: list[bytes | StreamFrame]) -> None:
        self.frames = frames
        self.answered = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes | StreamFrame]:
        for frame in self.frames:
            yield frame
            await self.answered.wait()
            self.answered.clear()


async def test_stream_gives_answers_in_order(service: Service, fake: FakeEstimator) -> None:
    fake.people = 3
    frames = Paced(
        [
            StreamFrame(marked_png(5), sequence=0, timestamp=0.25),
            marked_png(6),
            b"no image",
            StreamFrame(marked_png(7), sequence=10),
        ]
    )
    answers: list[StreamAnswer] = []
    async for answer in service.grpc.stream(
        frames, Ask(max_people=1), AS_ESTIMATED, request_id="my-stream"
    ):
        answers.append(answer)
        frames.answered.set()
    assert [answer.sequence for answer in answers] == [0, 1, 2, 10]
    assert [answer.dropped for answer in answers] == [0, 0, 0, 0]
    assert [answer.timestamp for answer in answers] == [0.25, None, None, None]
    failed = answers.pop(2).outcome
    assert isinstance(failed, ServiceError)
    assert failed.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE
    assert [mark_of(answer) for answer in answers] == [5, 6, 7]
    for answer in answers:
        assert isinstance(answer.outcome, PoseAnswer)
        assert len(answer.outcome.people) == 1
        assert answer.outcome.request_id == "my-stream"


async def test_stream_of_a_list_skips_to_the_latest(service: Service, fake: FakeEstimator) -> None:
    fake.gate.clear()
    opening = asyncio.create_task(
        collected(service.grpc.stream([marked_png(n) for n in range(1, 8)], stream=AS_ESTIMATED))
    )
    dropped = service.runtime.metrics.stream_frames.labels("dropped")
    await wait_until(lambda: dropped._value.get() >= 5)
    fake.gate.set()
    answers = await opening
    assert sum(1 + answer.dropped for answer in answers) == 7
    assert mark_of(answers[-1]) == 7


async def test_leaving_a_stream_ends_it(service: Service) -> None:
    async with aclosing(service.grpc.stream(Paced([marked_png(1), marked_png(2)]))) as answers:
        assert mark_of(await anext(answers)) == 1
    await wait_until(lambda: not service.runtime.metrics.streams_active._value.get())


async def test_end_of_the_stream_is_a_service_error() -> None:
    async with serving(FakeEstimator()) as service:
        frames = Paced([marked_png(1), marked_png(2)])
        answers = service.grpc.stream(frames)
        assert mark_of(await anext(answers)) == 1
        service.stop.set()
        with rejected(ErrorCode.UNAVAILABLE, match="draining"):
            await anext(answers)


async def test_what_the_frames_raise_comes_through(service: Service) -> None:
    def broken() -> Iterator[bytes]:
        yield marked_png(1)
        raise OSError("the camera is gone")

    async def broken_later() -> AsyncIterator[bytes]:
        for each in broken():
            yield each

    for frames in (broken(), broken_later()):
        with pytest.raises(OSError, match="the camera is gone"):
            await collected(service.grpc.stream(frames))
    with GrpcPoseClient(service.target) as client, pytest.raises(OSError, match="camera is gone"):
        await asyncio.to_thread(lambda: list(client.stream(broken())))


async def test_blocking_stream(service: Service) -> None:
    def ask() -> list[StreamAnswer]:
        with GrpcPoseClient(service.target) as client:
            answers = list(client.stream([StreamFrame(marked_png(4), sequence=0)]))
            first = next(client.stream(iter([marked_png(8)])))
            return [*answers, first]

    answers = await asyncio.to_thread(ask)
    assert [(answer.sequence, mark_of(answer)) for answer in answers] == [(0, 4), (1, 8)]


async def test_blocking_stream_raises_what_ends_it() -> None:
    async with serving(FakeEstimator(), api_keys="secret") as service:

        def ask() -> None:
            with GrpcPoseClient(service.target) as client:
                list(client.stream([marked_png(1)]))

        with rejected(ErrorCode.UNAUTHENTICATED):
            await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (Ask(cycles=-1), "cycles"),
        (Ask(max_people=-1), "max_people"),
        (Ask(max_people=2**32), "max_people"),
    ],
)
async def test_numbers_that_no_message_holds(service: Service, asked: Ask, name: str) -> None:
    with rejected(ErrorCode.INVALID_ARGUMENT, field=name):
        await service.grpc.estimate(marked_png(1), asked)


async def test_a_stream_has_no_boxes(service: Service) -> None:
    with pytest.raises(ServiceError) as refused:
        await collected(service.grpc.stream([marked_png(1)], Ask(boxes=[Box(0, 0, 5, 5)])))
    assert refused.value.field == "boxes"


async def collected(answers: AsyncIterator[T]) -> list[T]:
    return [answer async for answer in answers]
