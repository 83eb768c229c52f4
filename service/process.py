"""One process, one event loop: both servers, the runtime, and the signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
import uvicorn

from service.rest.app import create_app
from service.rest.protocol import BoundedHttpProtocol
from service.rpc.server import RpcServer
from service.runtime.runtime import Build, Runtime, State, build_estimator
from service.settings import Settings
from service.telemetry.tracing import Tracer, TracingError, make_tracer

_HEALTH_EVERY_S = 0.25
# Time for clients to get the reason, and for a suspended process to catch up.
_GIVE_UP_S = 5.0
# For answers that are on their way; the work itself has had its grace time before.
_HTTP_GRACE_S = 1
# Longer than a proxy keeps an idle connection (nginx: 60 s), which must not meet a closed one.
_KEEP_ALIVE_S = 75

_log = structlog.get_logger(__name__)


class StartError(RuntimeError):
    """The service cannot start; the message is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers listen."""

    host: str
    http_port: int
    grpc_port: int

    @property
    def page(self) -> str:
        """The address of the page that takes an image, for a browser on this machine."""
        everywhere = self.host in ("", "0.0.0.0", "::")
        return f"http://{_address('localhost' if everywhere else self.host, self.http_port)}/"


class _HttpServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process as a whole, not to one of its servers."""
        yield


@dataclass(frozen=True, slots=True)
class Ending:
    """How serving ended; not `clean` means that a model still runs in a thread.

    The interpreter must then be left with `os._exit`: native code does not survive its end.
    """

    status: int
    clean: bool


async def run_service(
    settings: Settings,
    *,
    build: Build = build_estimator,
    on_listening: Callable[[Addresses, Runtime], None] | None = None,
    stop: asyncio.Event | None = None,
    tracer: Tracer | None = None,
) -> Ending:
    """Serves until a stop signal (or `stop` is set), or until a worker is lost or stuck for good.

    `SIGTERM` and `SIGINT` finish what is queued, a second one ends at once. Raises `StartError`
    where a port is taken or the models do not load and warm.
    """
    stop = stop or asyncio.Event()
    with _signals_set(stop):
        try:
            tracer = tracer or make_tracer(wanted=settings.tracing)
        except TracingError as error:
            raise StartError(str(error)) from None
        try:
            runtime = Runtime(settings, build=build, tracer=tracer)
        except ValueError as error:  # a camera file or a pattern
            raise StartError(str(error)) from None
        return await _run(runtime, on_listening, stop)


async def _run(
    runtime: Runtime,
    on_listening: Callable[[Addresses, Runtime], None] | None,
    stop: asyncio.Event,
) -> Ending:
    settings = runtime.settings
    http_socket = _listen(settings.host, settings.http_port)
    http = _HttpServer(
        uvicorn.Config(
            create_app(runtime),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            http=BoundedHttpProtocol,
            timeout_keep_alive=_KEEP_ALIVE_S,
            # A margin over the image bound, so that a frame just over it gets our own error.
            ws_max_size=int(settings.max_image_mb * 2**20) + 2**20,
            ws_per_message_deflate=False,  # image files do not get smaller
            timeout_graceful_shutdown=_HTTP_GRACE_S,
        )
    )
    rpc = RpcServer(runtime)
    try:
        grpc_port = await rpc.start(_address(settings.host, settings.grpc_port))
    except OSError as error:
        http_socket.close()
        raise StartError(f"{error} (SDPOSE_GRPC_PORT)") from None
    serving = asyncio.create_task(http.serve(sockets=[http_socket]))
    addresses = Addresses(settings.host, http_socket.getsockname()[1], grpc_port)
    _log.info("listening", host=settings.host, http=addresses.http_port, grpc=grpc_port)
    if on_listening is not None:
        on_listening(addresses, runtime)
    try:
        finished = await _serve(runtime, rpc, serving, stop, addresses)
    finally:
        http.should_exit = True
        clean = runtime.stop()
        await rpc.stop(1.0)
        await asyncio.gather(serving, return_exceptions=True)
        # Last, as it blocks: the answers that were still on their way are out.
        runtime.tracer.stop()
    _log.info("stopped", finished=finished)
    return Ending(0 if finished else 1, clean)


async def _serve(
    runtime: Runtime,
    rpc: RpcServer,
    serving: asyncio.Task[None],
    stop: asyncio.Event,
    addresses: Addresses,
) -> bool:
    """Start, wait for the stop, drain; returns whether the stop was requested and all work done."""
    starting = asyncio.create_task(runtime.start())
    stopping = asyncio.create_task(stop.wait())
    broken = False
    try:
        await asyncio.wait({starting, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            raise StartError("the HTTP server ended unexpectedly") from serving.exception()
        if starting.done():
            if (error := starting.exception()) is not None:
                raise StartError(f"the models do not start: {error}") from error
            _log.info("open in a browser", page=addresses.page)
            telling = asyncio.create_task(_tell_health(runtime, rpc))
            await asyncio.wait({stopping, serving, telling}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done() and not stop.is_set():
                broken = True
                _log.error(
                    "ends, to be replaced", reason=runtime.not_live(), exc_info=telling.exception()
                )
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        if serving.done() and not stop.is_set():
            broken = True
            _log.error("the HTTP server ended unexpectedly", exc_info=serving.exception())
        _log.info("draining", grace_seconds=runtime.settings.drain_seconds)
        await rpc.tell_ready(False)
        return await runtime.drain() and not broken
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


async def _tell_health(runtime: Runtime, rpc: RpcServer) -> None:
    """Keeps gRPC's health service true to the runtime, until the process should be replaced.

    It returns after `_GIVE_UP_S` of checks that all found a worker lost or stuck: a supervisor
    (compose, systemd) restarts what has ended, not what is merely unhealthy.
    """
    reported: str | None = State.STARTING
    ill = 0
    while ill * _HEALTH_EVERY_S < _GIVE_UP_S:
        reason = runtime.not_ready()
        if (reason is None) != (reported is None):
            await rpc.tell_ready(reason is None)
            if reason is not None:
                _log.error("not well", reason=reason)
        reported = reason
        ill = 0 if runtime.not_live() is None else ill + 1
        await asyncio.sleep(_HEALTH_EVERY_S)


@contextmanager
def _signals_set(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            # The second signal: no drain, no clean-up; the status is the one shells give.
            os._exit(128 + number)
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, int(number))
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named since asyncio turns Nagle's delay off only where it sees TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        raise StartError(f"cannot listen on {_address(host, port)}: {reason}") from None
    listener.setblocking(False)
    return listener


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
