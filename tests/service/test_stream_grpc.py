"""What is particular to `StreamPose`; what both front ends share is in `test_streams.py`."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from protos.sdpose.v1 import pose_pb2
from service.errors import ErrorCode, ServiceError
from tests.fakes import FakeEstimator
from tests.service.conftest import Service, serving, until_metrics_have
from tests.service.stream_clients import frame

pytestmark = pytest.mark.anyio


async def test_settings_may_come_with_the_first_frame(service: Service) -> None:
    config = pose_pb2.StreamConfig(options=pose_pb2.PoseOptions(cycles=8))
    call = service.grpc.stub.StreamPose()
    await call.write(pose_pb2.StreamPoseRequest(image=frame(1), config=config))
    assert (await call.read()).error.field == "cycles"
    await call.write(pose_pb2.StreamPoseRequest(image=frame(2), config=config))
    with pytest.raises(grpc.aio.AioRpcError, match="config: only the first message"):
        await call.read()


async def test_what_was_sent_before_the_end_is_answered(
    service: Service, fake: FakeEstimator
) -> None:
    fake.gate.clear()
    call = service.grpc.stub.StreamPose()
    for number in (1, 2):
        await call.write(pose_pb2.StreamPoseRequest(image=frame(number)))
        assert await asyncio.to_thread(fake.entered.wait, 100)
    await call.done_writing()
    fake.gate.set()
    assert [answer.sequence async for answer in call] == [1, 2]


async def test_stream_needs_a_key() -> None:
    async with serving(FakeEstimator(), api_keys="secret") as service:
        call = service.grpc.stub.StreamPose()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_memory_for_what_callers_sent_is_bounded(fake: FakeEstimator) -> None:
    """Whole requests and frames share it; what does not fit is refused, and all is given back."""
    large = frame(1) + bytes(700_000)
    async with serving(fake, max_memory_mb=3) as service:
        fake.gate.clear()
        in_flight = asyncio.create_task(service.grpc.estimate(large))
        await asyncio.to_thread(fake.entered.wait, 100)
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
        await asyncio.to_thread(fake.entered.wait, 100)
        call.cancel()
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        fake.gate.set()
        assert service.runtime.bodies.used == 0
