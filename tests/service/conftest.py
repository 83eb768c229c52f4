"""A whole service on free ports, over a fake or a real estimator."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.client import AsyncGrpcPoseClient, AsyncRestPoseClient, Retry
from service.pipeline.estimator import Estimator
from service.process import Addresses, Ending, run_service
from service.runtime.models import Build
from service.runtime.runtime import Runtime
from service.runtime.state import State
from service.scheduling.owner_thread import OwnerThread
from service.settings import Settings, load_settings
from service.telemetry.logs import configure_logs
from service.telemetry.tracing import Tracer
from tests.fakes import FakeEstimator
from tests.service.doubler import Doubler, Ear


@pytest.fixture(scope="session", autouse=True)
def own_environment() -> Iterator[None]:
    """What the shell exports for a service of its own, or for a proxy, is not for the tests."""
    with pytest.MonkeyPatch.context() as patched:
        for name in list(os.environ):
            if name.startswith("SDPOSE_") or name.lower().endswith("_proxy"):
                patched.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> io.StringIO:
    """The service's own logs as an operator has them, kept off the tests' output."""
    stream = io.StringIO()
    configure_logs("warning", "json", stream)
    return stream


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Service:
    """A running service with a client for each front end; `running` gives how it ended."""

    runtime: Runtime
    addresses: Addresses
    url: str
    target: str
    rest: AsyncRestPoseClient
    grpc: AsyncGrpcPoseClient
    stop: asyncio.Event
    running: asyncio.Task[Ending]


def quiet_settings(**overrides: object) -> Settings:
    """Settings on free ports, with the time that a busy machine may need for an answer."""
    ports = {"host": "127.0.0.1", "http_port": 0, "grpc_port": 0}
    patience = {"default_deadline_ms": 300_000, "max_deadline_ms": 300_000}
    return load_settings(**{**ports, **patience, **overrides})


@asynccontextmanager
async def serving(
    estimator: Estimator | Build,
    *,
    api_key: str | None = None,
    tracer: Tracer | None = None,
    **overrides: object,
) -> AsyncIterator[Service]:
    """Starts a service over an estimator, or what builds one; waits until it is ready; stops it."""
    stop = asyncio.Event()
    heard: asyncio.Future[tuple[Addresses, Runtime]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        run_service(
            quiet_settings(**overrides),
            build=estimator if callable(estimator) else lambda _: estimator,
            on_listening=lambda addresses, runtime: heard.set_result((addresses, runtime)),
            stop=stop,
            tracer=tracer,
        )
    )
    await asyncio.wait({running, heard}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    addresses, runtime = heard.result()
    while runtime.state is State.STARTING:
        await asyncio.sleep(0.005)
    scheme = "https" if addresses.encrypted else "http"
    url = f"{scheme}://{addresses.host}:{addresses.http_port}"
    target = f"{addresses.host}:{addresses.grpc_port}"
    once = Retry(attempts=1)
    try:
        async with (
            AsyncRestPoseClient(url, api_key=api_key, retry=once) as rest,
            AsyncGrpcPoseClient(target, api_key=api_key, retry=once) as rpc,
        ):
            yield Service(runtime, addresses, url, target, rest, rpc, stop, running)
    finally:
        if isinstance(estimator, FakeEstimator):
            estimator.gate.set()  # where a test failed before it did
        stop.set()
        await asyncio.wait_for(running, 100)


async def until_metrics_have(service: Service, line: str) -> None:
    """Waits until the metrics page holds this very line."""
    async with asyncio.timeout(100):
        while line not in service.runtime.metrics.exposition().decode().splitlines():
            await asyncio.sleep(0.01)


@pytest.fixture
def fake() -> FakeEstimator:
    return FakeEstimator()


@pytest.fixture
async def service(fake: FakeEstimator) -> AsyncIterator[Service]:
    async with serving(fake) as running:
        yield running


@pytest.fixture
def worker() -> Iterator[OwnerThread]:
    thread = OwnerThread("test")
    yield thread
    thread.stop(timeout_s=5)


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url) as client:
        yield client


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Where a test may write a file of keys."""
    return tmp_path / "keys.toml"
