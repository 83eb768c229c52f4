"""Spans of a request through both front ends."""

from __future__ import annotations

import socket
import sys
import threading

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from sdpose_client.v1 import pose_pb2
from service.process import StartError, run_service
from service.telemetry.tracing import OpenTelemetryTracer, SilentTracer, make_tracer
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import quiet_settings, serving, traced

pytestmark = pytest.mark.anyio

TRACE = 0x0AF7651916CD43DD8448EB211C80319C
PARENT = f"00-{TRACE:032x}-b7ad6b7169203331-01"


@pytest.mark.parametrize("front", ["rest", "grpc"])
async def test_one_span_a_stage_in_the_callers_trace(front: str) -> None:
    tracer, seen = traced()
    async with serving(FakeEstimator(), tracer=tracer) as service:
        if front == "rest":
            files = {"image": ("a", PNG)}
            await service.http.post("/pose", files=files, headers={"traceparent": PARENT})
        else:
            request = pose_pb2.EstimatePoseRequest(image=PNG)
            metadata = (("traceparent", PARENT),)
            await service.grpc.stub.EstimatePose(request, metadata=metadata)
    spans = {span.name: span for span in seen.get_finished_spans()}
    request_name = {"rest": "POST /pose", "grpc": "sdpose.v1.PoseService/EstimatePose"}[front]
    assert set(spans) == {"decode", "detect", "crop", "pose", "keypoints", request_name}
    whole = spans.pop(request_name)
    assert whole.context.trace_id == TRACE
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time


class Stuck(SpanProcessor):
    """Cannot send what is left until the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.sent = False

    def shutdown(self) -> None:
        self.sent = self.gate.wait(100)


def test_a_collector_that_is_gone_does_not_hold_up_the_end() -> None:
    stuck = Stuck()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(stuck)
    OpenTelemetryTracer(provider, longest_stop_s=0.01).stop()
    assert not stuck.sent
    stuck.gate.set()


class Late(SilentTracer):
    """Notes whether the HTTP port was still open when it was stopped."""

    port = 0
    open: bool | None = None

    def stop(self) -> None:
        with socket.socket() as probe:
            self.open = probe.connect_ex(("127.0.0.1", self.port)) == 0


async def test_traces_are_flushed_when_the_answers_are_out() -> None:
    tracer = Late()
    async with serving(FakeEstimator(), tracer=tracer) as service:
        tracer.port = int(service.url.rpartition(":")[2])
    assert tracer.open is False


def test_off_by_default() -> None:
    assert isinstance(make_tracer(enabled=quiet_settings().tracing), SilentTracer)


async def test_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartError, match=r"needs the extra: pip install -e '\.\[otel\]'"):
        await run_service(quiet_settings(tracing=True), build=lambda _: FakeEstimator())
