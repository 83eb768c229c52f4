"""Streams that go on: what is sent again, what is dropped, and when it is given up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any

import pytest

from sdpose_client import (
    Ask,
    AsyncGrpcPoseClient,
    AsyncWebSocketPoseClient,
    Box,
    ErrorCode,
    GrpcPoseClient,
    PoseAnswer,
    Reconnect,
    ServiceError,
    StreamAnswer,
    StreamAsk,
    StreamFrame,
    WebSocketPoseClient,
)
from sdpose_client.answers import Models, Size
from sdpose_client.frames import Frames, each_of
from sdpose_client.reconnect import follow
from tests.fakes import FakeEstimator, marked_png
from tests.service.conftest import Service, rejected, serving, until_metrics_have, wait_until
from tests.service.processes import process
from tests.service.stream_clients import mark_of, over_websocket

pytestmark = pytest.mark.anyio
SOON = Reconnect(first_s=0.01, longest_s=0.05)
EVERY = StreamAsk(drop="none", smoothing=False)
NO_MODELS = Models(student="", detector="", backend="", device="")
NOWHERE = PoseAnswer((), Size(1, 1), {}, NO_MODELS, "")


class Breaking:
    """A service whose streams break as told: after so many frames read and so many answered."""

    def __init__(self, *breaks: tuple[int, int]) -> None:
        self.breaks = list(breaks)
        self.opened: list[StreamAsk] = []
        self.read: list[list[int | None]] = []

    async def stream(
        self, frames: Frames, ask: Ask, stream: StreamAsk
    ) -> AsyncGenerator[StreamAnswer, None]:
        self.opened.append(stream)
        self.read.append([])
        last = self.breaks.pop(0) if self.breaks else None
        token: str | None = "token"
        count = 0
        async for frame in each_of(frames):
            self.read[-1].append(frame.sequence)
            count += 1
            if last is None or count <= last[1]:
                yield StreamAnswer(frame.sequence or 0, None, 0, NOWHERE, token)
                token = None
            if last is not None and count == last[0]:
                raise ServiceError(ErrorCode.UNAVAILABLE, "gone")


async def numbers(count: int, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x"
        await asyncio.sleep(pause_s)


async def test_every_frame_is_answered_once_where_none_may_be_dropped() -> None:
    service = Breaking((3, 1), (2, 0), (1, 1))
    told: list[str] = []
    keeping = Reconnect(first_s=0.001, buffer=4, tell=told.append)
    answers = [
        answer
        async for answer in follow(service.stream, numbers(9), stream=EVERY, reconnect=keeping)
    ]
    assert [answer.sequence for answer in answers] == list(range(1, 10))
    assert {answer.dropped for answer in answers} == {0}
    assert service.read[:3] == [[1, 2, 3], [2, 3], [2]]
    assert [asked.resume_token for asked in service.opened] == [None, "token", "token", "token"]
    assert told[0] == "gone; next try in 0.001 s"


async def test_the_source_waits_while_too_many_are_unanswered() -> None:
    taken = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield b"x"

    async def silent(
        frames: Frames, ask: Ask, stream: StreamAsk
    ) -> AsyncGenerator[StreamAnswer, None]:
        async for _ in each_of(frames):
            pass
        yield StreamAnswer(1, None, 0, NOWHERE)

    waiting = follow(silent, source(), stream=EVERY, reconnect=Reconnect(buffer=5))
    answer = asyncio.ensure_future(anext(waiting))
    while taken < 6:
        await asyncio.sleep(0)
    for _ in range(100):  # turns of the loop in which it could take more
        await asyncio.sleep(0)
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)
    await waiting.aclose()
    assert taken == 6, "five that are kept, and the one that waits for room"


async def test_the_newest_frame_waits_for_the_new_connection() -> None:
    service = Breaking((2, 2))

    async def source() -> AsyncIterator[bytes]:
        for number in range(1, 41):
            if number == 30:
                await wait_until(lambda: len(service.opened) >= 2)
            yield b"x"
            while number < 3 and [read[-1:] for read in service.read] != [[number]]:
                await asyncio.sleep(0.001)

    soon = Reconnect(first_s=0.1)
    answers = [answer async for answer in follow(service.stream, source(), reconnect=soon)]
    assert [answer.sequence for answer in answers][:3] == [1, 2, 29]
    assert answers[2].dropped == 26
    assert sum(1 + answer.dropped for answer in answers) == answers[-1].sequence == 40


async def test_what_makes_no_sense_to_try_again_is_raised() -> None:
    async def refused(
        frames: Frames, ask: Ask, stream: StreamAsk
    ) -> AsyncGenerator[StreamAnswer, None]:
        raise ServiceError(ErrorCode.UNAUTHENTICATED, "no key")
        yield

    with pytest.raises(ServiceError, match="no key"):
        await anext(follow(refused, numbers(2)))
    gone = Breaking(*[(1, 0)] * 9)
    with pytest.raises(ServiceError, match="gone"):
        async for _ in follow(
            gone.stream, numbers(2), stream=EVERY, reconnect=Reconnect(first_s=0.001, attempts=3)
        ):
            pass
    assert len(gone.opened) == 3


async def test_what_the_frames_raise_comes_through() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise OSError("the camera is gone")

    answers = follow(Breaking().stream, broken(), stream=EVERY)
    assert (await anext(answers)).sequence == 1
    with pytest.raises(OSError, match="the camera is gone"):
        await anext(answers)


async def test_what_the_frames_raise_comes_through_without_a_connection() -> None:
    async def unreachable(
        frames: Frames, ask: Ask, stream: StreamAsk
    ) -> AsyncGenerator[StreamAnswer, None]:
        await asyncio.sleep(0.05)
        raise ServiceError(ErrorCode.UNAVAILABLE, "gone")
        yield

    def broken() -> Iterator[bytes]:
        raise OSError("the camera is gone")
        yield b""

    with pytest.raises(OSError, match="the camera is gone"):
        await anext(follow(unreachable, broken(), reconnect=SOON))


@pytest.fixture(params=["grpc", "websocket"])
def clients(request: pytest.FixtureRequest) -> Callable[[Service], Any]:
    def client(service: Service) -> AsyncGrpcPoseClient | AsyncWebSocketPoseClient:
        if request.param == "grpc":
            return AsyncGrpcPoseClient(service.target, api_key="secret")
        return AsyncWebSocketPoseClient(service.url, api_key="secret")

    return client


async def test_a_service_that_restarts(clients: Callable[[Service], Any]) -> None:
    """On the same ports: every frame has its answer, from the one service or the other."""
    client: Any = None
    ports: dict[str, int] = {}
    answers: list[StreamAnswer] = []
    turn: asyncio.Queue[int] = asyncio.Queue()

    async def frames() -> AsyncIterator[bytes]:
        while mark := await turn.get():
            yield marked_png(mark)

    for marks in (range(1, 6), range(6, 10)):
        async with serving(FakeEstimator(), api_keys="secret", **ports) as service:
            if client is None:
                ports = {
                    "http_port": int(service.url.rsplit(":", 1)[1]),
                    "grpc_port": int(service.target.rsplit(":", 1)[1]),
                }
                client = clients(service)
                following = client.follow(frames(), stream=EVERY, reconnect=SOON)
            for mark in marks:
                turn.put_nowait(mark)
                async with asyncio.timeout(100):
                    answers.append(await anext(following))
            if mark == 9:
                turn.put_nowait(0)
                assert await anext(following, None) is None
    assert list(map(mark_of, answers)) == list(range(1, 10))
    assert [answer.sequence for answer in answers] == list(range(1, 10))
    if hasattr(client, "close"):
        await client.close()


async def test_websocket_client_asks_and_gets_what_grpc_does(
    service: Service, fake: FakeEstimator
) -> None:
    fake.people = 3
    frames = [
        StreamFrame(marked_png(5), sequence=0, timestamp=0.25),
        StreamFrame(marked_png(6), boxes=[Box(0, 0, 8, 8)]),
        StreamFrame(b"no image"),
        StreamFrame(marked_png(7), sequence=10),
    ]
    ask, stream = Ask(max_people=2, cycles=1, flip_test=True), EVERY
    web = AsyncWebSocketPoseClient(service.url)
    over_web = [one async for one in web.stream(frames, ask, stream, request_id="mine")]
    over_grpc = [one async for one in service.grpc.stream(frames, ask, stream)]
    for mine, other in zip(over_web, over_grpc, strict=True):
        assert (mine.sequence, mine.timestamp, mine.dropped) == (
            other.sequence,
            other.timestamp,
            other.dropped,
        )
        assert (mine.resume_token is None) == (other.resume_token is None)
        if isinstance(other.outcome, ServiceError):
            assert isinstance(mine.outcome, ServiceError)
            assert mine.outcome.code is other.outcome.code
            continue
        assert isinstance(mine.outcome, PoseAnswer)
        assert mine.outcome.request_id == "mine"
        assert [p.id for p in mine.outcome.people] == [p.id for p in other.outcome.people]
        assert mark_of(mine) == mark_of(other)
    assert len(over_web) == 4
    assert [one async for one in web.stream([])] == []


async def test_websocket_errors_in_our_vocabulary(fake: FakeEstimator) -> None:
    async with serving(fake, api_keys="secret", max_streams=1) as service:

        async def first(client: AsyncWebSocketPoseClient, ask: Ask | None = None) -> StreamAnswer:
            async with aclosing(client.stream([marked_png(1)], ask)) as answers:
                return await anext(answers)

        with rejected(ErrorCode.UNAUTHENTICATED):
            await first(AsyncWebSocketPoseClient(service.url, api_key="wrong"))
        client = AsyncWebSocketPoseClient(service.url, api_key="secret")
        with rejected(ErrorCode.INVALID_ARGUMENT, field="max_people"):
            await first(client, Ask(max_people=0))
        async with over_websocket(service, "secret"):
            await until_metrics_have(service, "sdpose_streams_active 1.0")
            with rejected(ErrorCode.OVERLOADED):
                await first(client)
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        fake.gate.clear()
        with rejected(ErrorCode.DEADLINE_EXCEEDED):
            await anext(client.stream([marked_png(1)], timeout_s=0.2))
        fake.gate.set()
    with rejected(ErrorCode.UNAVAILABLE):
        await first(client)


def test_blocking_clients() -> None:
    """Outside this process: two event loops of gRPC in one process get in each other's way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with process(grpc_port=port) as (_, rest):
        clients = (
            WebSocketPoseClient(str(rest.base_url)),
            GrpcPoseClient(f"127.0.0.1:{port}"),
        )
        for client in clients:
            answers = list(client.follow([marked_png(4)] * 3, stream=EVERY))
            assert [one.sequence for one in answers] == [1, 2, 3]
            with closing(client.follow(iter([marked_png(4)] * 3), stream=EVERY)) as left:
                assert next(left).sequence == 1


async def test_every_connection_of_a_stream_has_its_name_and_lost_identities_are_told() -> None:
    service, told = Breaking((2, 2), (1, 1)), list[str]()
    tokens = iter(["first", "first", "second"])

    async def connect(
        frames: Frames, ask: Ask, stream: StreamAsk
    ) -> AsyncGenerator[StreamAnswer, None]:
        token: str | None = next(tokens)
        async for answer in service.stream(frames, ask, stream):
            yield replace(answer, resume_token=token)
            token = None

    again = replace(SOON, tell=told.append)
    async for _ in follow(connect, numbers(8, 0.01), reconnect=again):
        pass
    names = {each.affinity for each in service.opened}
    assert len(service.opened) == 3
    assert len(names) == 1
    assert None not in names
    assert [each.resume_token for each in service.opened] == [None, "first", "first"]
    assert [line for line in told if "new ids" in line] == [
        "people have new ids: the stream was not known"
    ]
