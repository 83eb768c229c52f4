"""A whole service on free ports, over a fake or a real estimator."""

from __future__ import annotations

import asyncio
import io
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from grpc.aio import Channel, insecure_channel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sdpose_client import AsyncGrpcPoseClient, AsyncRestPoseClient, Retry
from service.errors import ErrorCode, ServiceError
from service.pipeline.estimator import Estimator
from service.process import Addresses, Ending, run_service
from service.runtime.models import Build
from service.runtime.runtime import Runtime
from service.runtime.state import State
from service.scheduling.owner_thread import OwnerThread
from service.settings import Settings, load_settings
from service.telemetry.logs import configure_logs
from service.telemetry.tracing import OpenTelemetryTracer, Tracer
from tests.fakes import PNG, FakeEstimator
from tests.service.doubler import Stand

T = TypeVar("T")
ONCE = Retry(attempts=1)


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
    """A running service with a client for each front end and plain connections to both; `running`
    gives how it ended."""

    runtime: Runtime
    addresses: Addresses
    url: str
    target: str
    rest: AsyncRestPoseClient
    grpc: AsyncGrpcPoseClient
    http: httpx.AsyncClient
    channel: Channel
    stop: asyncio.Event
    running: asyncio.Task[Ending]


def quiet_settings(**overrides: object) -> Settings:
    """Settings on free ports, with the time that a busy machine may need for an answer."""
    ports = {"host": "127.0.0.1", "http_port": 0, "grpc_port": 0}
    patience = {"default_deadline_ms": 300_000, "max_deadline_ms": 300_000}
    assert overrides.keys() <= Settings.model_fields.keys()  # an unknown name would do nothing
    return load_settings(**{**ports, **patience, **overrides})


def traced() -> tuple[OpenTelemetryTracer, InMemorySpanExporter]:
    """A tracer, and the spans that it has written."""
    seen, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    return OpenTelemetryTracer(provider), seen


@asynccontextmanager
async def serving(
    estimator: Estimator | Build,
    *,
    api_key: str | None = None,
    tracer: Tracer | None = None,
    ready: bool = True,
    **overrides: object,
) -> AsyncIterator[Service]:
    """Starts a service over an estimator, or what builds one, and stops it in the end.

    Waits until it is ready, unless `ready` is False: then until it listens.
    """
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
    if ready:
        await wait_until(lambda: runtime.state is not State.STARTING)
    scheme = "https" if addresses.encrypted else "http"
    url = f"{scheme}://{addresses.host}:{addresses.http_port}"
    target = f"{addresses.host}:{addresses.grpc_port}"
    headers = {"X-API-Key": api_key} if api_key else None
    no_certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to read them takes a while
    try:
        async with (
            AsyncRestPoseClient(url, api_key=api_key, retry=ONCE) as rest,
            AsyncGrpcPoseClient(target, api_key=api_key, retry=ONCE) as rpc,
            httpx.AsyncClient(
                base_url=url, headers=headers, timeout=100, verify=no_certificates
            ) as http,
            insecure_channel(target) as channel,
        ):
            yield Service(runtime, addresses, url, target, rest, rpc, http, channel, stop, running)
    finally:
        if isinstance(estimator, FakeEstimator):
            estimator.gate.set()  # where a test failed before it did
        stop.set()
        await asyncio.wait_for(running, 100)


@contextmanager
def rejected(
    code: ErrorCode, match: str | None = None, field: str | None = None
) -> Iterator[pytest.ExceptionInfo[ServiceError]]:
    """Expects that the block raises a `ServiceError` of this code, and of this field if given."""
    with pytest.raises(ServiceError, match=match) as raised:
        yield raised
    assert raised.value.code is code, raised.value
    assert field in (None, raised.value.field)


async def both_refuse(service: Service, code: ErrorCode) -> None:
    """Expects that both front ends answer an image so."""
    for front in (service.rest, service.grpc):
        with rejected(code):
            await front.estimate(PNG)


async def wait_until(condition: Callable[[], object]) -> None:
    """Returns as soon as the condition holds."""
    async with asyncio.timeout(100):
        while not condition():
            await asyncio.sleep(0.01)


async def until_metrics_have(service: Service, line: str) -> None:
    """Waits until the metrics page holds this very line."""
    metrics = service.runtime.metrics
    await wait_until(lambda: line in metrics.exposition().decode().splitlines())


async def until_queued(service: Service, count: int) -> None:
    """Waits until so many images are in the detector's queue."""
    await until_metrics_have(service, f'sdpose_queue_depth{{stage="detect"}} {float(count)}')


async def in_the_model(fake: FakeEstimator, asking: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """The task of a request that the fake holds at its closed gate."""
    fake.gate.clear()
    fake.entered.clear()
    task = asyncio.create_task(asking)
    assert await asyncio.to_thread(fake.entered.wait, 100)
    return task


@pytest.fixture
def debug_logs(quiet_logs: io.StringIO) -> Iterator[io.StringIO]:
    """Everything that a test's services log."""
    stream = io.StringIO()
    configure_logs("debug", "json", stream)
    yield stream
    configure_logs("warning", "json", quiet_logs)


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
def stand(worker: OwnerThread) -> Stand:
    return Stand(worker)


@pytest.fixture
def http(service: Service) -> httpx.AsyncClient:
    return service.http


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Where a test may write a file of keys."""
    return tmp_path / "keys.toml"
