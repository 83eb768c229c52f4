"""`WS /pose/stream` over a real server and a real client."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from service.errors import ErrorCode
from service.rest.stream import CLOSE_CODE
from tests.fakes import FakeEstimator, marked_image
from tests.pictures import encoded, png_bomb
from tests.service.conftest import Service, serving, until_metrics_have

pytestmark = pytest.mark.anyio


def frame(mark: int) -> bytes:
    return encoded(marked_image(mark), "PNG")


@asynccontextmanager
async def stream(
    service: Service, query: str = "", *, plain: bool = True, **options: Any
) -> AsyncIterator[Any]:
    """Open; `plain` switches tracking off, so that answers show the marks of their images."""
    url = f"{service.url.replace('http', 'ws')}/pose/stream{query}"
    async with connect(url, proxy=None, **options) as connection:
        if plain:
            with suppress(ConnectionClosed):  # refused at once: the test reads the reason
                await connection.send('{"config": {"tracking": false}}')
        yield connection


async def answer(connection: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        text = await connection.recv()
    assert isinstance(text, str)
    told: dict[str, Any] = json.loads(text)
    return told


async def closed(connection: ClientConnection) -> tuple[int, str]:
    """The code and the reason with which the server ends the connection."""
    with pytest.raises(ConnectionClosed) as end:
        await answer(connection)
    assert end.value.rcvd is not None
    return end.value.rcvd.code, end.value.rcvd.reason


def test_every_code_has_a_close_code() -> None:
    assert set(CLOSE_CODE) == set(ErrorCode)


async def test_answers_in_order(service: Service) -> None:
    async with stream(service, additional_headers={"X-Request-ID": "my-stream"}) as connection:
        assert connection.response.headers["X-Request-ID"] == "my-stream"
        for number in range(1, 6):
            await connection.send(frame(number))
            told = await answer(connection)
            assert (told["sequence"], told["dropped"]) == (number, 0)
            assert told["people"][0]["keypoints"][0]["x"] == number
            assert told["request_id"] == "my-stream"
        await until_metrics_have(service, "sdpose_streams_active 1.0")
    await until_metrics_have(service, "sdpose_streams_active 0.0")
    await until_metrics_have(service, 'sdpose_stream_frames_total{outcome="ok"} 5.0')
    await until_metrics_have(service, 'sdpose_requests_total{api="rest_stream",outcome="ok"} 1.0')


async def test_latest_frame_wins(service: Service, fake: FakeEstimator) -> None:
    fake.gate.clear()
    async with stream(service) as connection:
        await connection.send(frame(1))
        await asyncio.to_thread(fake.entered.wait, 10)
        for number in range(2, 8):
            await connection.send(frame(number))
        await until_metrics_have(service, 'sdpose_stream_frames_total{outcome="dropped"} 5.0')
        fake.gate.set()
        first, last = await answer(connection), await answer(connection)
    assert (first["sequence"], first["dropped"]) == (1, 0)
    assert (last["sequence"], last["dropped"]) == (7, 5)
    assert last["people"][0]["keypoints"][0]["x"] == 7


async def test_parameters(service: Service, fake: FakeEstimator) -> None:
    fake.people = 3
    query = "?max_people=1&min_keypoint_score=0.88&cycles=2&flip_test=true&priority=low"
    async with stream(service, query) as connection:
        await connection.send(frame(1))
        (person,) = (await answer(connection))["people"]
    assert len(person["keypoints"]) == 3
    assert fake.posed == [(2, True, 2)]  # the second might be a copy of the first


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("?max_people=0", "max_people"),
        ("?min_score=nan", "min_score"),
        ("?priority=urgent", "priority"),
        ("?cycles=1&cycles=2", "cycles"),
        ("?deadline_ms=5", "deadline_ms"),
        ("?boxes=[]", "boxes"),
        (f"?{'x' * 300}=1", "x" * 80),
    ],
)
async def test_bad_parameters(service: Service, query: str, name: str) -> None:
    async with stream(service, query) as connection:
        code, reason = await closed(connection)
    assert code == 1008
    assert reason.startswith(f"invalid_argument: {name}: ")


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"", "invalid_image"),
        (b"hello, I am no image", "unsupported_media_type"),
        (png_bomb(), "payload_too_large"),
        (frame(1) + bytes(1_100_000), "payload_too_large"),
        (frame(0x0A0B0C), "internal"),
    ],
)
async def test_bad_frame_does_not_end_the_stream(image: bytes, code: str) -> None:
    fake = FakeEstimator(poison=frozenset({0x0A0B0C}))
    async with serving(fake, max_image_mb=1) as service, stream(service) as connection:
        await connection.send(image)
        told = await answer(connection)
        assert set(told) == {"sequence", "dropped", "error"}
        assert told["sequence"] == 1
        assert told["error"]["code"] == code
        assert "poison" not in told["error"]["detail"]
        await connection.send(frame(7))
        assert (await answer(connection))["sequence"] == 2
        line = f'sdpose_stream_frames_total{{outcome="{code}"}} 1.0'
        await until_metrics_have(service, line)
        await until_metrics_have(service, 'sdpose_stream_frames_total{outcome="ok"} 1.0')


async def test_text_ends_the_stream(service: Service) -> None:
    async with stream(service) as connection:
        await connection.send("hello")
        assert await closed(connection) == (
            1008,
            'invalid_argument: message: expected an image in a binary message, {"config": ...} '
            'or {"frame": ...}',
        )


async def test_message_far_over_the_limit() -> None:
    async with serving(FakeEstimator(), max_image_mb=0.1) as service, stream(service) as connection:
        await connection.send(bytes(3 * 2**20))
        code, _ = await closed(connection)
        assert code == 1009
        line = 'sdpose_requests_total{api="rest_stream",outcome="payload_too_large"} 1.0'
        await until_metrics_have(service, line)


async def test_too_many_streams_over_both_front_ends() -> None:
    async with serving(FakeEstimator(), max_streams=1) as service:
        async with stream(service) as first:
            await first.send(frame(1))
            await answer(first)
            async with stream(service) as second:
                assert await closed(second) == (1013, "overloaded: 1 streams are open already")
            call = service.grpc.stub.StreamPose()
            await call.done_writing()
            assert "1 streams are open already" in await call.details()
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        async with stream(service) as third:
            await third.send(frame(1))
            assert (await answer(third))["people"]


async def test_not_ready(fake: FakeEstimator) -> None:
    fake.fatal = frozenset({9})
    async with serving(fake) as service, stream(service) as connection:
        await connection.send(frame(9))  # takes the worker down
        code, reason = await closed(connection)
        assert code == 1013
        assert reason.startswith("unavailable: ")
        async with stream(service) as refused:
            code, reason = await closed(refused)
        assert code == 1013
        assert "pose worker, which is lost" in reason


async def test_drain_answers_the_frame_at_work_and_tells_why(fake: FakeEstimator) -> None:
    async with serving(fake) as service, stream(service) as connection:
        fake.gate.clear()
        await connection.send(frame(1))
        await asyncio.to_thread(fake.entered.wait, 10)
        service.stop.set()
        await asyncio.sleep(0.1)
        fake.gate.set()
        assert (await answer(connection))["sequence"] == 1
        assert await closed(connection) == (1012, "unavailable: the service is draining")


async def test_idle_stream_ends_when_draining(fake: FakeEstimator) -> None:
    async with serving(fake) as service, stream(service) as connection:
        await connection.send(frame(1))
        await answer(connection)
        service.stop.set()
        assert (await closed(connection))[0] == 1012


async def test_stream_without_frames_is_ended(fake: FakeEstimator) -> None:
    async with (
        serving(fake, max_streams=1, stream_idle_seconds=0.1) as service,
        stream(service) as connection,
    ):
        assert await closed(connection) == (1008, "deadline_exceeded: no frame came for 0.1 s")
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        line = 'sdpose_requests_total{api="rest_stream",outcome="deadline_exceeded"} 1.0'
        await until_metrics_have(service, line)


async def test_client_gone_takes_its_work_out_of_the_queue(
    service: Service, fake: FakeEstimator
) -> None:
    fake.gate.clear()
    first = asyncio.create_task(service.rest.estimate(frame(1)))
    await asyncio.to_thread(fake.entered.wait, 10)
    async with stream(service) as connection:
        await connection.send(frame(2))
        await until_metrics_have(service, 'sdpose_queue_depth{stage="detect"} 1.0')
    await until_metrics_have(service, 'sdpose_queue_depth{stage="detect"} 0.0')
    await until_metrics_have(service, 'sdpose_stream_frames_total{outcome="client_gone"} 1.0')
    fake.gate.set()
    await first
    assert fake.detected == [1]


async def test_client_that_does_not_read_is_dropped() -> None:
    """Its answers fill the way back; then its frames are dropped, and in the end it is itself."""
    fake = FakeEstimator(people=100)
    async with serving(fake, max_deadline_ms=1000) as service:
        async with stream(service, max_queue=1, ping_interval=None) as connection:

            async def send_on() -> None:
                with suppress(ConnectionClosed):
                    while True:
                        await connection.send(frame(1))
                        await asyncio.sleep(0)

            sending = asyncio.create_task(send_on())
            async with asyncio.timeout(60):
                while "sdpose_streams_active 1.0" in service.runtime.metrics.exposition().decode():
                    await asyncio.sleep(0.05)
            connection.transport.abort()
            await sending
        dropped = service.runtime.metrics.stream_frames.labels("dropped")
        assert dropped._value.get() > 0
        line = 'sdpose_requests_total{api="rest_stream",outcome="client_gone"} 1.0'
        await until_metrics_have(service, line)


def key_protocol(key: str) -> Subprotocol:
    shown = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    return Subprotocol(f"sdpose.key.{shown}")


async def test_keys() -> None:
    async with serving(FakeEstimator(), api_keys="one,tw/o~?") as service:
        ours = Subprotocol("sdpose.v1")
        good: list[dict[str, Any]] = [
            {"additional_headers": {"X-API-Key": "one"}},
            {"additional_headers": {"Authorization": "Bearer tw/o~?"}},
            {"subprotocols": [ours, key_protocol("tw/o~?")]},
            {"subprotocols": [key_protocol("one"), ours], "origin": "https://elsewhere.example"},
        ]
        for options in good:
            async with stream(service, **options) as connection:
                assert connection.subprotocol == (ours if "subprotocols" in options else None)
                await connection.send(frame(1))
                assert (await answer(connection))["people"]
        bad: list[dict[str, Any]] = [
            {},
            {"additional_headers": {"X-API-Key": "three"}},
            {"subprotocols": [ours, key_protocol("three")]},
            {"subprotocols": [ours, Subprotocol("sdpose.key.a")]},
        ]
        for options in bad:
            with pytest.raises(InvalidStatus) as refused:
                async with stream(service, **options):
                    pass
            assert refused.value.response.status_code == 401
            assert refused.value.response.body is not None
            assert json.loads(refused.value.response.body)["code"] == "unauthenticated"


async def test_pages_of_other_sites_need_a_key(service: Service) -> None:
    async with stream(service, origin=service.url) as connection:
        await connection.send(frame(1))
        assert (await answer(connection))["people"]
    with pytest.raises(InvalidStatus) as refused:
        async with stream(service, origin="https://elsewhere.example"):
            pass
    assert refused.value.response.status_code == 401
