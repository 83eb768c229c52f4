"""`StreamPose` over a real server: what ends a frame, what ends the stream, and what is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from protos.sdpose.v1 import pose_pb2
from service.client.grpc_messages import error_from
from service.errors import ErrorCode, ServiceError
from tests.fakes import FakeEstimator, marked_image
from tests.pictures import encoded, png_bomb
from tests.service.conftest import Service, serving, until_metrics_have
from tests.service.test_grpc import frame

pytestmark = pytest.mark.anyio


def counted(service: Service, outcome: str) -> float:
    return float(service.runtime.metrics.stream_frames.labels(outcome)._value.get())


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"", "invalid_image"),
        (encoded(marked_image(1), "JPEG")[:300], "invalid_image"),
        (b"hello, I am no image", "unsupported_media_type"),
        (png_bomb(), "payload_too_large"),
        (encoded(marked_image(1), "PNG") + bytes(1_100_000), "payload_too_large"),
        (encoded(marked_image(0x0A0B0C), "PNG"), "internal"),
    ],
)
async def test_bad_frame_does_not_end_the_stream(image: bytes, code: str) -> None:
    fake = FakeEstimator(poison=frozenset({0x0A0B0C}))
    async with serving(fake, max_image_mb=1) as service:
        call = service.grpc.stub.StreamPose()
        await call.write(pose_pb2.StreamPoseRequest(image=image))
        answer = await call.read()
        assert (answer.sequence, answer.error.code) == (1, code)
        assert "poison" not in answer.error.message
        await call.write(frame(7))
        answer = await call.read()
        assert answer.sequence == 2
        assert answer.result.people[0].keypoints[0].x == 7
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert (counted(service, code), counted(service, "ok")) == (1, 1)


async def test_frame_that_no_cycle_count_fits(service: Service) -> None:
    config = pose_pb2.StreamConfig(options=pose_pb2.PoseOptions(cycles=8))
    call = service.grpc.stub.StreamPose()
    await call.write(frame(1, config=config))
    answer = await call.read()
    assert (answer.error.code, answer.error.field) == ("invalid_argument", "cycles")
    await call.done_writing()


async def read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_client_that_does_not_read_is_dropped() -> None:
    """As on the WebSocket: answers fill the way back, and a place in the bound is not kept so."""
    fake = FakeEstimator(people=100)
    async with serving(fake, max_deadline_ms=500) as service:
        call = service.grpc.stub.StreamPose()

        await call.write(frame(1))
        await until_metrics_have(service, "sdpose_streams_active 1.0")
        while "sdpose_streams_active 1.0" in service.runtime.metrics.exposition().decode():
            await call.write(frame(1))
            await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_to_the_end(call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        line = 'sdpose_requests_total{api="grpc_stream",outcome="deadline_exceeded"} 1.0'
        await until_metrics_have(service, line)


async def test_stream_without_frames_is_ended(fake: FakeEstimator) -> None:
    async with serving(fake, max_streams=1, stream_idle_seconds=0.1) as service:
        call = service.grpc.stub.StreamPose()
        await call.write(pose_pb2.StreamPoseRequest(config=pose_pb2.StreamConfig()))  # no frame
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call.read()
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert ended.value.details() == "no frame came for 0.1 s"
        assert error_from(ended.value).code is ErrorCode.DEADLINE_EXCEEDED
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        line = 'sdpose_requests_total{api="grpc_stream",outcome="deadline_exceeded"} 1.0'
        await until_metrics_have(service, line)


async def test_late_frame_is_a_frame_error() -> None:
    fake = FakeEstimator()
    async with serving(fake, max_deadline_ms=100) as service:
        fake.gate.clear()
        call = service.grpc.stub.StreamPose()
        await call.write(frame(1))
        assert (await call.read()).error.code == "deadline_exceeded"
        fake.gate.set()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert (counted(service, "deadline_exceeded"), counted(service, "ok")) == (1, 0)


async def test_refused_frame_is_a_frame_error(fake: FakeEstimator) -> None:
    async with serving(fake, max_requests=1) as service:
        call = service.grpc.stub.StreamPose()
        await call.write(frame(1))
        await call.read()
        fake.gate.clear()
        fake.entered.clear()
        in_flight = asyncio.create_task(service.rest.estimate(encoded(marked_image(1), "PNG")))
        await asyncio.to_thread(fake.entered.wait, 10)
        await call.write(frame(2))
        answer = await call.read()
        assert (answer.sequence, answer.error.code) == (2, "overloaded")
        fake.gate.set()
        await in_flight
        await call.write(frame(3))
        assert (await call.read()).result.people
        await call.done_writing()


async def test_lost_worker_ends_the_stream_and_is_counted(fake: FakeEstimator) -> None:
    fake.fatal = frozenset({9})
    async with serving(fake) as service:
        call = service.grpc.stub.StreamPose()
        await call.write(frame(9))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call.read()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert error_from(ended.value).code is ErrorCode.UNAVAILABLE
        assert (counted(service, "unavailable"), counted(service, "ok")) == (1, 0)
        refused = service.grpc.stub.StreamPose()
        assert await refused.code() is grpc.StatusCode.UNAVAILABLE


async def test_cancelled_stream_is_no_success(service: Service, fake: FakeEstimator) -> None:
    fake.gate.clear()
    call = service.grpc.stub.StreamPose()
    await call.write(frame(1))
    await asyncio.to_thread(fake.entered.wait, 10)
    await call.write(frame(2))
    await call.write(frame(3))
    await until_metrics_have(service, 'sdpose_stream_frames_total{outcome="dropped"} 1.0')
    call.cancel()
    # The frame at work and the one that waits.
    await until_metrics_have(service, 'sdpose_stream_frames_total{outcome="client_gone"} 2.0')
    await until_metrics_have(service, "sdpose_streams_active 0.0")
    assert counted(service, "ok") == 0
    fake.gate.set()


@pytest.mark.parametrize("first", [0, 1, 2**63])
async def test_first_number_is_the_callers_choice(service: Service, first: int) -> None:
    call = service.grpc.stub.StreamPose()
    await call.write(frame(1, sequence=first))
    assert (await call.read()).sequence == first
    await call.write(frame(2))
    assert (await call.read()).sequence == first + 1
    await call.write(frame(3, sequence=first + 1))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert error_from(refused.value).field == "sequence"


async def test_no_number_comes_after_the_largest(service: Service) -> None:
    call = service.grpc.stub.StreamPose()
    await call.write(frame(1, sequence=2**64 - 1))
    assert (await call.read()).sequence == 2**64 - 1
    await call.write(frame(2))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert error_from(refused.value).code is ErrorCode.INVALID_ARGUMENT


async def test_streams_are_bounded() -> None:
    async with serving(FakeEstimator(), max_streams=2) as service:
        open_ones = [service.grpc.stub.StreamPose() for _ in range(2)]
        for call in open_ones:
            await call.write(frame(1))
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.grpc.stub.StreamPose().read()
        error = error_from(refused.value)
        assert error.code is ErrorCode.OVERLOADED
        assert error.retry_after_s == 5
        open_ones[0].cancel()
        await until_metrics_have(service, "sdpose_streams_active 1.0")
        await until_metrics_have(service, 'sdpose_shed_total{reason="too_many_streams"} 1.0')
        again = service.grpc.stub.StreamPose()
        await again.write(frame(4))
        assert (await again.read()).result.people
        again.cancel()
        open_ones[1].cancel()


async def test_memory_for_what_callers_sent_is_bounded(fake: FakeEstimator) -> None:
    """Whole requests and frames share it; what does not fit is refused, and all is given back."""
    large = encoded(marked_image(1), "PNG") + bytes(700_000)
    async with serving(fake, max_bodies_mb=1) as service:
        fake.gate.clear()
        in_flight = asyncio.create_task(service.grpc.estimate(large))
        await asyncio.to_thread(fake.entered.wait, 10)
        with pytest.raises(ServiceError) as refused:
            await service.grpc.estimate(large)
        assert refused.value.code is ErrorCode.OVERLOADED
        call = service.grpc.stub.StreamPose()
        await call.write(pose_pb2.StreamPoseRequest(image=large))
        assert (await call.read()).error.code == "overloaded"
        await until_metrics_have(service, 'sdpose_shed_total{reason="memory"} 2.0')
        fake.gate.set()
        await in_flight
        for number in (2, 3):
            await call.write(pose_pb2.StreamPoseRequest(image=large))
            answer = await call.read()
            assert (answer.sequence, len(answer.result.people)) == (number, 1)
        fake.gate.clear()
        fake.entered.clear()
        for _ in range(4):  # one is looked at, one waits, the others are pushed out
            await call.write(pose_pb2.StreamPoseRequest(image=large[:300_000]))
        await asyncio.to_thread(fake.entered.wait, 10)
        call.cancel()
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        fake.gate.set()
        assert service.runtime.bodies.used == 0
