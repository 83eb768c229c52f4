"""One process, one event loop: both servers, the runtime, and the signals."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import structlog

from service.reloading import Reloading
from service.rest.server import HttpServers
from service.rpc.server import RpcServer
from service.runtime.models import Build, build_estimator
from service.runtime.runtime import Runtime
from service.runtime.state import State
from service.settings import Settings
from service.telemetry.tracing import Tracer, TracingError, make_tracer
from service.tls import TlsError

_HEALTH_EVERY_S = 0.25
# Time for clients to get the reason, and for a suspended process to catch up.
_GIVE_UP_S = 5.0

_log = structlog.get_logger(__name__)


class StartError(RuntimeError):
    """The service cannot start; the message is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers listen."""

    host: str
    http_port: int
    grpc_port: int
    metrics_port: int | None = None
    encrypted: bool = False

    @property
    def local(self) -> bool:
        """Whether only this machine reaches them."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def page(self) -> str:
        """The address of the page that takes an image, for a browser on this machine."""
        everywhere = self.host in ("", "0.0.0.0", "::")  # noqa: S104 - compared
        scheme = "https" if self.encrypted else "http"
        return f"{scheme}://{_address('localhost' if everywhere else self.host, self.http_port)}/"


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
    if a port is taken or the models do not load and warm.
    """
    stop = stop or asyncio.Event()
    with _signals_set(stop):
        try:
            tracer = tracer or make_tracer(enabled=settings.tracing)
        except TracingError as error:
            raise StartError(str(error)) from None
        try:
            runtime = Runtime(settings, build=build, tracer=tracer)
        except ValueError as error:  # a camera file, a pattern or a key file
            raise StartError(str(error)) from None
        return await _run(runtime, on_listening, stop)


async def _run(
    runtime: Runtime,
    on_listening: Callable[[Addresses, Runtime], None] | None,
    stop: asyncio.Event,
) -> Ending:
    settings = runtime.settings
    tls = settings.tls
    try:
        context = None if tls is None else tls.context()
    except TlsError as error:
        raise StartError(f"{error} (SDPOSE_TLS_CERTIFICATE)") from None
    with ExitStack() as sockets:
        callers = sockets.enter_context(_listen(settings.host, settings.http_port, "http-port"))
        operator = None
        if settings.metrics_port is not None:
            operator = sockets.enter_context(
                _listen(settings.host, settings.metrics_port, "metrics-port")
            )
        rpc = RpcServer(runtime, tls)
        try:
            grpc_port = await rpc.start(_address(settings.host, settings.grpc_port))
        except OSError as error:
            raise StartError(f"{error}; {_choose('grpc-port')}") from None
        http = HttpServers(runtime, context)
        serving = asyncio.create_task(http.serve(callers, operator))
        addresses = Addresses(
            settings.host,
            callers.getsockname()[1],
            grpc_port,
            None if operator is None else operator.getsockname()[1],
            encrypted=tls is not None,
        )
        sockets.pop_all()  # the servers close them
    _log.info(
        "listening",
        host=settings.host,
        http=addresses.http_port,
        grpc=grpc_port,
        metrics=addresses.metrics_port,
        encrypted=addresses.encrypted,
    )
    if runtime.access.open and not addresses.local and settings.tls_client_ca is None:
        _log.warning(
            "open to everyone who reaches it: no keys are configured",
            host=settings.host,
            do="set SDPOSE_KEY_FILE or SDPOSE_API_KEYS",
        )
    if on_listening is not None:
        on_listening(addresses, runtime)
    reloading = Reloading(runtime, tls, context)
    try:
        with reloading.on_hangup():
            finished = await _serve(runtime, rpc, serving, stop, addresses, reloading)
    finally:
        http.stop()
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
    reloading: Reloading,
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
            telling = asyncio.create_task(_tell_health(runtime, rpc, reloading))
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


async def _tell_health(runtime: Runtime, rpc: RpcServer, reloading: Reloading) -> None:
    """Keeps gRPC's health service true to the runtime, until the process should be replaced.

    It looks at files that may have changed on the way.

    It returns after `_GIVE_UP_S` of checks that all found a worker lost or stuck: a supervisor
    (compose, systemd) restarts what has ended, not what is merely unhealthy.
    """
    reported: str | None = State.STARTING
    ill = 0
    while ill * _HEALTH_EVERY_S < _GIVE_UP_S:
        reloading.look()
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


def _choose(option: str) -> str:
    """How to choose another port than the one that cannot be taken."""
    variable = f"SDPOSE_{option.upper().replace('-', '_')}"
    return f"choose another port with --{option} or {variable}, such as {variable}=8080"


def _listen(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named since asyncio turns Nagle's delay off only where it sees TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        where = _address(host, port)
        raise StartError(f"cannot listen on {where}: {reason}; {_choose(option)}") from None
    listener.setblocking(False)
    return listener


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
