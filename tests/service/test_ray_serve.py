"""The service on Ray Serve: the same cases as of both front ends, and the same contract."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import grpc
import httpx
import pytest
import schemathesis

pytest.importorskip("ray", reason="comes with `make test-all`")

from ray import serve
from ray.serve.config import AutoscalingConfig
from schemathesis.generation import GenerationMode

from sdpose_client import (
    Ask,
    AsyncGrpcPoseClient,
    AsyncRestPoseClient,
    AsyncWebSocketPoseClient,
    ErrorCode,
    PoseAnswer,
    Retry,
    ServiceError,
    StreamAsk,
)
from sdpose_client.v1 import pose_pb2, pose_pb2_grpc
from sdpose_core.hardware.ray_cluster import cluster
from service.ray.app import GRPC_SERVICER, serving_app
from tests.fakes import FakeEstimator, marked_image, marked_png
from tests.pictures import encoded
from tests.service.test_both_front_ends import ACCEPTED, PNG, REFUSED, Refused
from tests.service.test_contract import try_operation
from tools.deployment.processes import free_ports

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow("starts Ray Serve, 2 min"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's, of its own settings
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
KEYS = {"api_keys": "good"}
BOTH = ["rest", "grpc"]
ONE: dict[str, object] = {
    "num_replicas": 1,
    "autoscaling_config": None,
    "ray_actor_options": {"num_cpus": 0},
}


@dataclass(frozen=True)
class Served:
    """Where the application answers."""

    http: int
    grpc: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def client(
        self, front: str, key: str | None = None
    ) -> AsyncRestPoseClient | AsyncGrpcPoseClient:
        once = Retry(attempts=1)
        if front == "rest":
            return AsyncRestPoseClient(self.url, api_key=key, retry=once)
        return AsyncGrpcPoseClient(f"127.0.0.1:{self.grpc}", api_key=key, retry=once)


def fake_models(_: object) -> FakeEstimator:
    return FakeEstimator(people=2)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    http, rpc = free_ports(2)
    with cluster(None):
        serve.start(
            http_options={"host": "127.0.0.1", "port": http},
            grpc_options={"port": rpc, "grpc_servicer_functions": [GRPC_SERVICER]},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        strict = {"max_image_mb": 1, "max_boxes": 5, "max_images": 2}
        patience = {
            "max_queue_ms": 300_000,
            "default_deadline_ms": 300_000,
            "max_deadline_ms": 300_000,
        }
        serve.run(serving_app(strict | patience, fake_models, **ONE), name="pose")
        yield Served(http, rpc)
        serve.shutdown()


@pytest.mark.parametrize("front", BOTH)
async def test_bad_requests_get_the_same_codes(served: Served, front: str) -> None:
    async with served.client(front) as client:
        for case in REFUSED:
            with pytest.raises(ServiceError) as refused:
                await client.estimate(case.image, case.what)
            assert told(refused.value, case) == (case.code, case.field), case.name


def told(error: ServiceError, case: Refused) -> tuple[ErrorCode, str | None]:
    return error.code, case.field if case.name == "too many bytes" else error.field


@pytest.mark.parametrize("front", BOTH)
async def test_good_images(served: Served, front: str) -> None:
    async with served.client(front) as client:
        for name, (image, size) in ACCEPTED.items():
            answer = await client.estimate(image)
            assert (answer.width, answer.height) == size, name


async def test_both_ways_give_the_same_people(served: Served) -> None:
    asked = Ask(max_people=1, min_keypoint_score=0.5)
    answers = []
    for front in BOTH:
        async with served.client(front) as client:
            answers.append(await client.estimate(PNG, asked, request_id="mine"))
    rest, rpc = answers
    assert rest.request_id == rpc.request_id == "mine"
    assert len(rest.people) == len(rpc.people) == 1
    names = [[point.name for point in answer.people[0].keypoints] for answer in answers]
    assert names[0] == names[1]
    assert 0 < len(names[0]) < 17


async def frames(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield encoded(marked_image(0x010203 + number, 64, 64), "PNG")


@pytest.mark.parametrize("way", ["grpc", "websocket"])
async def test_streams(served: Served, way: str) -> None:
    client: AsyncGrpcPoseClient | AsyncWebSocketPoseClient
    if way == "grpc":
        client = AsyncGrpcPoseClient(f"127.0.0.1:{served.grpc}")
    else:
        client = AsyncWebSocketPoseClient(served.url)
    ids, sequences = list[int | None](), list[int]()
    async with (
        client,
        aclosing(client.stream(frames(12), Ask(max_people=1), StreamAsk(drop="none"))) as answers,
    ):
        async for answer in answers:
            assert isinstance(answer.outcome, PoseAnswer), answer.outcome
            sequences.append(answer.sequence)
            ids += [person.id for person in answer.outcome.people]
    assert sequences == sorted(sequences)
    assert len(sequences) == 12
    assert set(ids) == {1}


async def test_what_is_refused_within_a_stream_ends_it_with_its_code(served: Served) -> None:
    async with AsyncGrpcPoseClient(f"127.0.0.1:{served.grpc}") as client:
        asked = StreamAsk(detect_every=-1)
        with pytest.raises(ServiceError) as refused:
            async for _ in client.stream(frames(3), Ask(), asked):
                pass
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


async def test_an_unknown_camera_is_not_found(served: Served) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc}") as channel:
        stub = pose_pb2_grpc.PoseServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in stub.WatchCamera(pose_pb2.WatchCameraRequest(name="none")):
                pass
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_many_at_once_get_their_own_answers(served: Served) -> None:
    async with served.client("rest") as rest, served.client("grpc") as rpc:

        async def one(mark: int) -> bool:
            image = marked_png(mark)
            answer = await (rest if mark % 2 else rpc).estimate(image)
            return round(answer.people[0].keypoints[0].x) == mark

        assert all(await asyncio.gather(*map(one, range(1, 60))))


def test_the_contract_holds(served: Served) -> None:
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    tried = list[str]()
    for mode in GenerationMode:
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path not in ("/pose", "/models", "/readyz", "/livez"):
                continue
            if mode is GenerationMode.NEGATIVE and not operation.body:
                continue
            try_operation(operation, mode, tried, 10)
    assert set(tried) == {"/pose", "/models", "/readyz", "/livez"}


def slow_models(_: object) -> FakeEstimator:
    return FakeEstimator(delay_s=0.2)


def running_replicas(name: str) -> int:
    return serve.status().applications[name].deployments["pose"].replica_states.get("RUNNING", 0)


async def test_replicas_come_and_go_with_the_load_and_no_request_is_lost(served: Served) -> None:
    quick = AutoscalingConfig(
        min_replicas=1,
        max_replicas=2,
        target_ongoing_requests=2,
        metrics_interval_s=0.5,
        look_back_period_s=2,
        upscale_delay_s=0,
        downscale_delay_s=1,
    )
    nothing = {"num_cpus": 0}
    patient = {"max_queue_ms": 60_000}
    app = serving_app(patient, slow_models, autoscaling_config=quick, ray_actor_options=nothing)
    await asyncio.to_thread(partial(serve.run, app, name="scaled", route_prefix="/scaled"))
    wanted, statuses = 12, Counter[tuple[int, str]]()
    async with httpx.AsyncClient(base_url=f"{served.url}/scaled", timeout=60) as http:

        async def client(number: int) -> None:
            while number < wanted:
                files = {"image": ("a.png", PNG, "image/png")}
                answer = await http.post("/pose", files=files)
                statuses[answer.status_code, "" if answer.is_success else answer.text] += 1

        async with asyncio.timeout(120), asyncio.TaskGroup() as clients:
            for number in range(wanted):
                clients.create_task(client(number))
            while await asyncio.to_thread(running_replicas, "scaled") < 2:
                await asyncio.sleep(0.2)
            wanted = 1
            while await asyncio.to_thread(running_replicas, "scaled") > 1:
                await asyncio.sleep(0.2)
            wanted = 0
    assert set(statuses) == {(200, "")}
    await asyncio.to_thread(serve.delete, "scaled")


def test_page_documents_and_metrics_are_there(served: Served) -> None:
    for path in ("/", "/docs", "/metrics", "/livez", "/readyz"):
        assert httpx.get(served.url + path).status_code == 200, path


def test_a_replica_whose_models_do_not_load_says_why(served: Served) -> None:
    app = serving_app({"student": "no-such-student"}, **ONE)
    with pytest.raises(RuntimeError, match="broken failed"):
        serve.run(app, name="broken", route_prefix="/broken")
    assert "no-such-student" in serve.status().applications["broken"].deployments["pose"].message
    serve.delete("broken")


def slower_models(_: object) -> FakeEstimator:
    return FakeEstimator(delay_s=1.0)


async def test_a_call_s_deadline_reaches_the_service(served: Served) -> None:
    """It refuses at once what it cannot answer in time, instead of computing for no one."""
    app = serving_app({"max_queue_ms": 60_000}, slower_models, **ONE)
    await asyncio.to_thread(partial(serve.run, app, name="slower", route_prefix="/slower"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc}") as channel:
        stub = pose_pb2_grpc.PoseServiceStub(channel)
        ask = partial(
            stub.EstimatePose,
            pose_pb2.EstimatePoseRequest(image=PNG),
            metadata=(("application", "slower"),),
        )
        await ask(timeout=100)  # two seconds: the pace is known now
        ahead = [ask(timeout=100) for _ in range(3)]
        async with httpx.AsyncClient(base_url=f"{served.url}/slower") as http:
            begun = re.compile(r'sdpose_batch_dispatch_total{[^}]*"detect"} (\d)')
            while sum(map(int, begun.findall((await http.get("/metrics")).text))) < 2:
                await asyncio.sleep(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(timeout=3)  # less than those ahead will take
        for call in ahead:
            await call
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await asyncio.to_thread(serve.delete, "slower")


def keyed_models(_: object) -> FakeEstimator:
    return FakeEstimator()


async def test_keys(served: Served) -> None:
    """As its own application below a path, which Serve takes off before it calls us."""
    await asyncio.to_thread(
        partial(
            serve.run, serving_app(KEYS, keyed_models, **ONE), name="keyed", route_prefix="/keyed"
        )
    )
    async with httpx.AsyncClient(base_url=f"{served.url}/keyed") as http:
        files = {"image": ("a.png", PNG, "image/png")}
        assert (await http.post("/pose", files=files)).status_code == 401
        good = await http.post("/pose", files=files, headers={"X-API-Key": "good"})
        assert good.status_code == 200
    await asyncio.to_thread(serve.delete, "keyed")
