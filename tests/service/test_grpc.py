"""What is particular to gRPC: health, reflection, limits, the committed stubs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sdpose_client.grpc_messages import error_from
from sdpose_client.v1 import pose_pb2
from service.errors import ErrorCode
from service.pipeline.pipeline import PosePipeline
from service.rpc.interceptor import _APIS
from tests.fakes import FakeEstimator, marked_png
from tests.service.conftest import Service, in_the_model, rejected, serving, until_metrics_have
from tools import protos
from tools.protos import stale

pytestmark = pytest.mark.anyio
PNG = marked_png(5)


async def test_stubs_are_current() -> None:
    assert stale() == []


async def test_a_call_is_announced_until_its_message_is_there(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that calls which are sent together share a batch, however long their images take."""
    steps: list[str] = []

    def announce(pipeline: PosePipeline) -> Callable[[], None]:
        steps.append("announced")
        return lambda: steps.append("arrived")

    monkeypatch.setattr(PosePipeline, "announce", announce)
    await service.grpc.estimate(marked_png(5))
    assert steps == ["announced", "arrived"]
    call = service.grpc.stub.StreamPose()
    await call.write(pose_pb2.StreamPoseRequest(image=marked_png(1)))
    await call.read()
    await call.done_writing()
    assert len(steps) == 2


@contextmanager
def refused_as(code: ErrorCode) -> Iterator[None]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        yield
    assert error_from(refused.value).code is code


def sized(number: int, content: bytes) -> bytes:
    """A field of protobuf with a length."""
    head = b""
    for value in (number << 3 | 2, len(content)):
        while value > 127:
            head, value = head + bytes([value & 127 | 128]), value >> 7
        head += bytes([value])
    return head + content


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (sized(3, b"\x0a\x00" * 60_000), ErrorCode.PAYLOAD_TOO_LARGE),  # empty boxes
        (sized(3, b"\x0a\x00" * 101), ErrorCode.PAYLOAD_TOO_LARGE),
        (b"\x1a\x00" * 65, ErrorCode.PAYLOAD_TOO_LARGE),
        (b"\xa0\x1f\x01" * 65, ErrorCode.PAYLOAD_TOO_LARGE),  # unknown numbers
        (sized(99, bytes(70_000)), ErrorCode.PAYLOAD_TOO_LARGE),
        (sized(1, PNG) + b"\x13\x14" * 9, ErrorCode.INVALID_ARGUMENT),  # groups
        (b"\xff" * 11, ErrorCode.INVALID_ARGUMENT),
        (sized(1, PNG)[:-5], ErrorCode.INVALID_ARGUMENT),
        (sized(1, PNG) + sized(99, b"a new field"), None),
    ],
)
async def test_a_message_is_measured_before_it_is_built(
    service: Service, message: bytes, code: ErrorCode | None
) -> None:
    call = service.channel.unary_unary("/sdpose.v1.PoseService/EstimatePose")(message)
    if code is None:
        await call
        return
    with refused_as(code):
        await call
    streamed = service.channel.stream_stream("/sdpose.v1.PoseService/StreamPose")
    # Boxes are the fifth field of a stream's message.
    sent = streamed(iter([message.replace(b"\x1a", b"\x2a", 65)]))
    with refused_as(code):
        await sent.read()


@pytest.mark.parametrize(
    "method",
    [
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_what_no_message_is_is_not_our_fault_elsewhere(service: Service, method: str) -> None:
    for data, code in (
        (b"\xff" * 11, grpc.StatusCode.INVALID_ARGUMENT),
        (sized(1, bytes(70_000)), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.channel.stream_stream(f"/{method}")(iter([data])).read()
        assert refused.value.code() is code


async def test_health(service: Service) -> None:
    health = health_pb2_grpc.HealthStub(service.channel)
    for name in ("", "sdpose.v1.PoseService"):
        while True:  # set a moment after the runtime turns ready
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                break
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_tells_the_contract(service: Service) -> None:
    """What grpcurl does: list the services, then fetch the file that defines one."""
    stub = reflection_pb2_grpc.ServerReflectionStub(service.channel)

    async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="sdpose.v1.PoseService")

    listed, described = [answer async for answer in stub.ServerReflectionInfo(requests())]
    names = {entry.name for entry in listed.list_services_response.service}
    assert {"sdpose.v1.PoseService", "grpc.health.v1.Health"} <= names
    file = descriptor_pb2.FileDescriptorProto.FromString(
        described.file_descriptor_response.file_descriptor_proto[0]
    )
    methods = {method.name: method for method in file.service[0].method}
    assert set(methods) == {"EstimatePose", "StreamPose", "WatchCamera"}
    assert methods["StreamPose"].client_streaming
    assert methods["StreamPose"].server_streaming


async def test_message_over_the_limit() -> None:
    async with serving(FakeEstimator(), max_image_mb=1) as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.grpc.stub.EstimatePose(
                pose_pb2.EstimatePoseRequest(image=bytes(3 * 2**20))
            )
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_from(refused.value).code is ErrorCode.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize("method", ["EstimatePose", "StreamPose", "WatchCamera"])
@pytest.mark.parametrize("data", [b"\x0a\xff", b"\xff", bytes(range(256)), b"\x0a\x05ab"])
async def test_bytes_that_are_no_message_are_the_callers_fault(
    service: Service, method: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    api = _APIS[method]
    path = f"/sdpose.v1.PoseService/{method}"
    if method == "EstimatePose":
        answer = service.channel.unary_unary(path)(data)
    elif method == "StreamPose":
        answer = service.channel.stream_stream(path)(iter([data])).read()
    else:
        answer = service.channel.unary_stream(path)(data).read()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await answer
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_from(refused.value).field == "message"
    counted = f'sdpose_requests_total{{api="{api}",outcome="invalid_argument"}} 1.0'
    await until_metrics_have(service, counted)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_settings_may_come_with_the_first_frame(service: Service) -> None:
    config = pose_pb2.StreamConfig(options=pose_pb2.PoseOptions(cycles=8))
    call = service.grpc.stub.StreamPose()
    await call.write(pose_pb2.StreamPoseRequest(image=marked_png(1), config=config))
    assert (await call.read()).error.field == "cycles"
    await call.write(pose_pb2.StreamPoseRequest(image=marked_png(2), config=config))
    with pytest.raises(grpc.aio.AioRpcError, match="config: only the first message"):
        await call.read()


async def test_what_was_sent_before_the_end_is_answered(
    service: Service, fake: FakeEstimator
) -> None:
    fake.gate.clear()
    call = service.grpc.stub.StreamPose()
    for number in (1, 2):
        await call.write(pose_pb2.StreamPoseRequest(image=marked_png(number)))
        assert await asyncio.to_thread(fake.entered.wait, 100)
    await call.done_writing()
    fake.gate.set()
    assert [answer.sequence async for answer in call] == [1, 2]


async def test_unknown_priority(service: Service) -> None:
    request = pose_pb2.EstimatePoseRequest(options=pose_pb2.PoseOptions(priority=77))  # type: ignore[arg-type]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.grpc.stub.EstimatePose(request)
    assert error_from(refused.value).field == "priority"


def test_a_changed_contract_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The check of the stubs ignores the generator's version and nothing else."""
    contract = (protos.ROOT / protos.CONTRACT).read_text(encoding="utf-8")
    copy = tmp_path / protos.CONTRACT
    copy.parent.mkdir(parents=True)
    stubs = Path("client", protos.PACKAGE)
    (tmp_path / stubs).mkdir(parents=True)
    for name in ("pose.proto", "pose_pb2.py", "pose_pb2.pyi", "pose_pb2_grpc.py"):
        stub = (protos.ROOT / stubs / name).read_text(encoding="utf-8")
        (tmp_path / stubs / name).write_text(stub.replace("1.85", "1.99"), encoding="utf-8")
    monkeypatch.setattr(protos, "ROOT", tmp_path)
    copy.write_text(contract, encoding="utf-8")
    assert stale() == []
    copy.write_text(contract.replace("float score = 4;", "float sc0re = 4;"), encoding="utf-8")
    assert stale() != []


@pytest.mark.parametrize("method", ["EstimatePose", "StreamPose"])
async def test_a_refused_call_is_answered_before_its_message_comes(method: str) -> None:
    """Nothing is ever sent here but the headers."""
    fake = FakeEstimator()
    async with serving(fake, api_keys="secret", max_requests=1, api_key="secret") as service:
        ask = service.channel.stream_stream(f"/sdpose.v1.PoseService/{method}")
        wrong = ask(metadata=[("x-api-key", "wrong")])
        assert await wrong.code() is grpc.StatusCode.UNAUTHENTICATED
        in_flight = await in_the_model(fake, service.grpc.estimate(marked_png(1)))
        busy = ask(metadata=[("x-api-key", "secret")])
        assert await busy.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(await busy.trailing_metadata())["sdpose-error-code"] == "overloaded"
        fake.gate.set()
        await in_flight


async def test_a_flood_of_calls_is_overload() -> None:
    """More calls than the service's own bounds let through are refused by the server below."""
    async with serving(FakeEstimator(), max_requests=1, max_streams=1) as service:
        health = health_pb2_grpc.HealthStub(service.channel)
        watching = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(1 + 1 + 64)]
        for call in watching:
            await call.read()
        with rejected(ErrorCode.OVERLOADED):
            await service.grpc.estimate(marked_png(1))
        for call in watching:
            call.cancel()
