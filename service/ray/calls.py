"""gRPC calls as Ray Serve hands them over, for the handlers that serve our own gRPC server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import Message
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve._private.proxy_request_response import gRPCStreamingType
from ray.serve.grpc_util import RayServegRPCContext

from sdpose_client.v1 import pose_pb2_grpc

_TIME_LEFT = "sdpose-time-left-ms"

Handler = Callable[[object, Any], Awaitable[None]]
"""One method of `PoseCallInterceptor.handlers`: reads and writes through its context."""


class Rejected(Exception):
    """A call that ended with the status that its context has.

    From a method that returns, Serve takes status and trailing metadata of the context; from one
    that raises, the status alone.
    """


def add_pose_service(servicer: object, server: gRPCGenericServer) -> None:
    """Adds the pose service to Serve's gRPC proxy; for its `grpc_servicer_functions`.

    Serve hands on the metadata of a call and not its deadline, so that goes along as metadata: the
    milliseconds left, since the clocks of two machines differ.
    """
    handlers = server.service_handler_factory

    def timed(*, streaming_type: gRPCStreamingType, **named: Any) -> Callable[..., Any]:
        handler = handlers(streaming_type=streaming_type, **named)

        # A coroutine like the handler, since gRPC calls it by its kind.
        async def handle(request: object, context: Any) -> object:
            return await handler(request, _Timed(context))

        async def many(request: object, context: Any) -> AsyncIterator[object]:
            async for answer in handler(request, _Timed(context)):
                yield answer

        ends_at_once = (gRPCStreamingType.UNARY_UNARY, gRPCStreamingType.STREAM_UNARY)
        return handle if streaming_type in ends_at_once else many

    server.service_handler_factory = timed
    try:
        pose_pb2_grpc.add_PoseServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    finally:
        server.service_handler_factory = handlers


class _Timed:
    """A context of gRPC whose metadata have the time left."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """That of the caller, and ours."""
        given = [pair for pair in self._context.invocation_metadata() if pair[0] != _TIME_LEFT]
        left_s = self._context.time_remaining()
        return given if left_s is None else [*given, (_TIME_LEFT, str(max(0, int(left_s * 1e3))))]


class ServeContext:
    """The part of `grpc.aio.ServicerContext` that our handlers use, over Serve's context."""

    def __init__(self, context: RayServegRPCContext, requests: AsyncIterator[Message]) -> None:
        self._context = context
        self._requests = requests
        left_ms = dict(context.invocation_metadata()).get(_TIME_LEFT)
        self._deadline = None if left_ms is None else time.monotonic() + int(left_ms) / 1e3
        self.answers: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=1)

    async def read(self) -> object:
        """The next request, or the end."""
        return await anext(self._requests, grpc.aio.EOF)  # type: ignore[attr-defined]

    async def write(self, message: Message) -> None:
        """Hands on one answer, and waits until the one before it is taken."""
        await self.answers.put(message)

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Sequence[tuple[str, str]]
    ) -> None:
        """Ends the call with this status."""
        self._context.set_code(code)
        self._context.set_details(details)
        self._context.set_trailing_metadata(list(trailing_metadata))
        raise Rejected(details)

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str]]) -> None:
        """Sets the metadata sent at the end of the call."""
        self._context.set_trailing_metadata(list(metadata))

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """Metadata of the caller."""
        metadata: Sequence[tuple[str, str]] = self._context.invocation_metadata()
        return metadata

    def peer(self) -> str:
        """gRPC's own word for the other side."""
        return str(self._context.peer())

    def time_remaining(self) -> float | None:
        """Seconds to the deadline of the call; None if it has none.

        Known where `add_pose_service` is Serve's servicer function; else none is.
        """
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())


async def single(
    handler: Handler, request: Message, context: RayServegRPCContext, nothing: Message
) -> Message:
    """The answer to one request, or `nothing` if the status has the reason."""
    ours = ServeContext(context, _once(request))
    try:
        await handler(None, ours)
    except Rejected:
        return nothing
    answer = ours.answers.get_nowait()
    assert answer is not None
    return answer


async def several(
    handler: Handler, requests: AsyncIterator[Message], context: RayServegRPCContext
) -> AsyncIterator[Message]:
    """The answers to a stream of requests, as they come. Raises `Rejected`."""
    ours = ServeContext(context, requests)

    async def run() -> None:
        try:
            await handler(None, ours)
        finally:
            with suppress(asyncio.CancelledError):
                await ours.answers.put(None)

    running = asyncio.create_task(run())
    try:
        while (answer := await ours.answers.get()) is not None:
            yield answer
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _once(request: Message) -> AsyncIterator[Message]:
    yield request
