"""Start, readiness, signals, drain, a lost worker."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import threading
from typing import ClassVar

import pytest
import torch
import uvicorn
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sdpose_client import ErrorCode, ServiceError
from sdpose_core import PoseEstimator
from sdpose_core.hardware.backends.openvino import OpenVINOBackend
from sdpose_core.hardware.backends.torch import TorchBackend
from service import process as process_module
from service.access.callers import Caller
from service.parameters import PoseParameters
from service.process import StartError, run_service
from service.rest import server as server_module
from service.runtime.models import build_estimator
from service.runtime.state import State
from service.settings import Settings
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import (
    both_refuse,
    in_the_model,
    quiet_settings,
    rejected,
    serving,
    until_metrics_have,
    until_queued,
    wait_until,
)
from tests.service.processes import metrics_of, process, until

pytestmark = pytest.mark.anyio

CALLER = Caller("a test")
AT_WORK = 'sdpose_queue_wait_seconds_count{stage="decode"} 1.0'


async def test_not_ready_until_warm() -> None:
    loading, may_load = threading.Event(), threading.Event()
    fake = FakeEstimator()

    def build(settings: Settings) -> FakeEstimator:
        loading.set()
        assert may_load.wait(100)
        return fake

    async with serving(build, ready=False, stall_seconds=1e-6) as service:
        http, runtime = service.http, service.runtime
        await asyncio.to_thread(loading.wait, 100)
        assert (await http.get("/livez")).status_code == 200, "a slow start is no stuck batch"
        assert "sdpose_ready 0.0" in (await http.get("/metrics")).text.splitlines()
        starting = await http.get("/readyz")
        assert starting.status_code == 503
        assert "starting" in starting.json()["detail"]
        assert (await http.post("/pose", files={"image": ("a", PNG)})).status_code == 503
        assert (await http.get("/models")).status_code == 503
        may_load.set()
        await wait_until(lambda: runtime.state is not State.STARTING)
        assert (await http.get("/readyz")).status_code == 200
        assert "sdpose_ready 1.0" in (await http.get("/metrics")).text.splitlines()
        assert fake.warmed == [(2, 1)], "every number of cycles has run before ready"
    assert service.running.result().status == 0


async def test_models_that_do_not_load_end_the_process_with_the_reason() -> None:
    def build(settings: Settings) -> FakeEstimator:
        raise ValueError("no student is called nonsense")

    with pytest.raises(StartError, match="no student is called nonsense"):
        await run_service(quiet_settings(), build=build)


@pytest.mark.parametrize("name", ["http_port", "grpc_port"])
async def test_taken_port_is_told(name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            StartError,
            match=f"cannot listen on 127.0.0.1:{port}.*--(http|grpc|metrics)-port or SDPOSE_",
        ):
            await run_service(quiet_settings(**{name: port}), build=lambda _: FakeEstimator())


async def test_lost_worker_fails_livez_and_requests(fake: FakeEstimator) -> None:
    fake.fatal = frozenset({0x010203})
    async with serving(fake) as service:
        assert (await service.http.get("/livez")).status_code == 200
        await both_refuse(service, ErrorCode.UNAVAILABLE)
        for path in ("/livez", "/readyz"):
            head = await service.http.head(path)
            assert (head.status_code, head.content) == (503, b"")
            response = await service.http.get(path)
            assert response.status_code == 503
            assert "pose worker, which is lost" in response.json()["detail"]
        health = health_pb2_grpc.HealthStub(service.channel)
        while True:
            answer = await health.Check(health_pb2.HealthCheckRequest())
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                break
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("stage", ["upload", "detect", "crop", "heatmaps", "keypoints"])
async def test_a_lost_device_fails_livez_and_requests(
    fake: FakeEstimator, stage: str, quiet_logs: io.StringIO
) -> None:
    async with serving(fake) as service:
        await service.rest.estimate(PNG)
        before = len(quiet_logs.getvalue())
        fake.broken = stage
        await both_refuse(service, ErrorCode.UNAVAILABLE)
        for path in ("/livez", "/readyz"):
            response = await service.http.get(path)
            assert response.status_code == 503
            assert "worker, which is lost" in response.json()["detail"]
        assert "sdpose_ready 0.0" in (await service.http.get("/metrics")).text.splitlines()
    told = quiet_logs.getvalue()[before:]
    assert told.count("the device of the models is lost") == 1
    assert "an illegal memory access was encountered" in told


async def test_stuck_worker_fails_livez(fake: FakeEstimator) -> None:
    async with serving(fake, stall_seconds=0.05) as service:
        stuck = await in_the_model(fake, service.rest.estimate(PNG))
        while (response := await service.http.get("/livez")).status_code == 200:
            await asyncio.sleep(0.01)
        assert response.status_code == 503
        assert "stuck" in response.json()["detail"]
        fake.gate.set()
        await stuck


@pytest.mark.parametrize("how", ["lost", "stuck"])
async def test_a_worker_lost_or_stuck_for_good_ends_the_process(
    fake: FakeEstimator, how: str, monkeypatch: pytest.MonkeyPatch, quiet_logs: io.StringIO
) -> None:
    monkeypatch.setattr(process_module, "_GIVE_UP_S", 0.5)
    async with serving(fake, stall_seconds=0.01, drain_seconds=0.2) as service:
        if how == "lost":
            fake.fatal = frozenset({0x010203})
        else:
            fake.gate.clear()
        parameters = PoseParameters()
        estimate = asyncio.create_task(service.runtime.estimate_frame(CALLER, PNG, parameters))
        ending = await service.running
        fake.gate.set()
    assert ending.status == 1
    assert ending.clean == (how == "lost")
    with pytest.raises(ServiceError):
        await estimate
    assert "ends, to be replaced" in quiet_logs.getvalue()
    assert (
        f"{'without its' if how == 'lost' else 'stuck: the'} pose worker" in quiet_logs.getvalue()
    )


async def test_a_batch_that_was_only_slow_ends_nothing(
    fake: FakeEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_GIVE_UP_S", 1.0)
    async with serving(fake, stall_seconds=0.01) as service:
        for _ in range(3):  # never ill for all of a second
            fake.gate.clear()
            slow = asyncio.create_task(service.rest.estimate(PNG))
            await asyncio.sleep(0.4)
            fake.gate.set()
            await slow
            await asyncio.sleep(0.3)
        assert service.runtime.not_ready() is None
        await service.rest.estimate(PNG)


async def test_drain_finishes_what_is_queued(fake: FakeEstimator) -> None:
    async with serving(fake) as service:
        fake.gate.clear()
        in_flight = [asyncio.create_task(service.rest.estimate(PNG)) for _ in range(3)]
        in_flight += [asyncio.create_task(service.grpc.estimate(PNG)) for _ in range(3)]
        await asyncio.to_thread(fake.entered.wait, 100)
        await wait_until(lambda: service.runtime.in_flight >= 6)
        service.stop.set()
        await wait_until(lambda: service.runtime.state is not State.READY)
        readyz = await service.http.get("/readyz")
        assert readyz.status_code == 503
        assert "draining" in readyz.json()["detail"]
        await both_refuse(service, ErrorCode.UNAVAILABLE)
        fake.gate.set()
        answers = await asyncio.gather(*in_flight)
        assert all(answer.people for answer in answers)


async def test_grace_time_is_kept(fake: FakeEstimator) -> None:
    async with serving(fake, drain_seconds=0.1) as service:
        in_flight = await in_the_model(fake, service.grpc.estimate(PNG))
        queued = asyncio.create_task(service.grpc.estimate(PNG))
        await until_queued(service, 1)
        service.stop.set()
        with rejected(ErrorCode.UNAVAILABLE):
            await queued
        assert not in_flight.done()
        fake.gate.set()
        await asyncio.wait({in_flight})


class SeenHttpServer(server_module._Server):
    """The HTTP server, within reach of a test."""

    made: ClassVar[list[SeenHttpServer]] = []

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.made.append(self)


@pytest.fixture
def seen_http(monkeypatch: pytest.MonkeyPatch) -> list[SeenHttpServer]:
    monkeypatch.setattr(server_module, "_Server", SeenHttpServer)
    SeenHttpServer.made.clear()
    return SeenHttpServer.made


async def test_the_http_server_gets_no_second_grace_time(
    fake: FakeEstimator, seen_http: list[SeenHttpServer]
) -> None:
    async with serving(fake, drain_seconds=30):
        assert seen_http[0].config.timeout_graceful_shutdown == 1


async def test_an_http_server_that_ends_by_itself_is_a_failure(
    seen_http: list[SeenHttpServer], quiet_logs: io.StringIO
) -> None:
    async with serving(FakeEstimator()) as service:
        seen_http[0].should_exit = True
        assert (await service.running).status == 1
    assert "the HTTP server ended unexpectedly" in quiet_logs.getvalue()


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"host": "0.0.0.0"}, True),
        ({"host": "0.0.0.0", "api_keys": "a"}, False),
        ({"host": "127.0.0.1"}, False),
        ({"host": "localhost"}, False),
    ],
)
async def test_a_service_without_keys_says_that_it_is_open(
    settings: dict[str, str], warned: bool, quiet_logs: io.StringIO
) -> None:
    before = len(quiet_logs.getvalue())
    async with serving(FakeEstimator(), **settings):
        pass
    assert ("open to everyone who reaches it" in quiet_logs.getvalue()[before:]) is warned


def test_sigterm_finishes_the_work_and_exits_0() -> None:
    answers: list[object] = []
    with process(slow_s=1) as (running, client):
        asking = threading.Thread(target=lambda: answers.append(client.estimate(PNG)))
        asking.start()
        until(lambda: AT_WORK in metrics_of(client), running)
        running.send_signal(signal.SIGTERM)
        asking.join(100)
        assert running.wait(100) == 0
        assert len(answers) == 1


def test_second_signal_ends_at_once() -> None:
    with process(slow_s=3600, SDPOSE_DRAIN_SECONDS="3600") as (running, client):

        def ask() -> None:
            with pytest.raises(ServiceError):
                client.estimate(PNG)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: AT_WORK in metrics_of(client), running)
        running.send_signal(signal.SIGTERM)
        until(lambda: not client.ready(), running)  # the first signal waits for the work
        running.send_signal(signal.SIGTERM)
        assert running.wait(100) == 128 + signal.SIGTERM
        asking.join(100)


async def test_failures_are_logged_with_the_request_id(
    fake: FakeEstimator, quiet_logs: io.StringIO
) -> None:
    fake.poison = frozenset({0x010203})
    async with serving(fake) as service:
        for front, request_id in ((service.rest, "rest-id"), (service.grpc, "grpc-id")):
            with rejected(ErrorCode.INTERNAL):
                await front.estimate(PNG, request_id=request_id)  # type: ignore[attr-defined]
    lines = [json.loads(line) for line in quiet_logs.getvalue().splitlines()]
    for request_id in ("rest-id", "grpc-id"):
        told = [line for line in lines if line.get("request_id") == request_id]
        assert any("a poisoned image" in line.get("exception", "") for line in told)


async def test_on_a_gpu_each_model_has_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (6e9, 8e9))
    monkeypatch.setattr("torch.cuda.utilization", lambda index: 50)
    fake = FakeEstimator(device="cuda:1")
    async with serving(fake) as service:
        assert fake.warmed == [(2, 8)], "the detector's largest batch too"
        assert (await service.rest.estimate(PNG)).models["device"] == "cuda:1"
        names = {worker.name for worker in service.runtime.pipeline.workers}
        assert names == {"detect", "pose"}
        assert service.runtime.pipeline.limits.pose.max_cost == 64
        assert service.runtime.pipeline.limits.pose.max_wait_s == 0.002
        await until_metrics_have(service, 'sdpose_gpu_memory_used_bytes{gpu="1"} 2e+09')
        await until_metrics_have(service, 'sdpose_gpu_utilisation_ratio{gpu="1"} 0.5')
    async with serving(FakeEstimator(device="cpu")) as service:
        first, second = service.runtime.pipeline.workers
        assert first is second
        assert service.runtime.pipeline.limits.pose.max_cost == 32
        assert service.runtime.pipeline.limits.pose.max_wait_s == 0.03


@pytest.mark.parametrize("backend", [OpenVINOBackend, TorchBackend])
def test_pytorch_keeps_to_one_thread_beside_openvino(
    monkeypatch: pytest.MonkeyPatch, backend: type[OpenVINOBackend | TorchBackend]
) -> None:
    asked: list[dict[str, object]] = []

    def from_pretrained(**named: object) -> FakeEstimator:
        asked.append(named)
        return FakeEstimator(backend_name=backend.name)

    monkeypatch.setattr(PoseEstimator, "from_pretrained", from_pretrained)
    wanted: dict[str, object] = {"student": "a", "detector": "b", "device": "c", "backend": "d"}
    wanted |= {"precision": "e", "max_batch": 3, "detector_size": 416, "detector_classes": "dog"}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        build_estimator(quiet_settings(**wanted))
        assert torch.get_num_threads() == (1 if backend is OpenVINOBackend else 2)
    finally:
        torch.set_num_threads(before)
    assert asked == [wanted]
