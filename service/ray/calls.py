"""gRPC calls as Ray Serve hands them over, for the handlers that serve our own gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import Message
from ray.serve.grpc_util import RayServegRPCContext

Handler = Callable[[object, Any], Awaitable[None]]
"""One method of `PoseCallInterceptor.handlers`: reads and writes through its context."""


class Refused(Exception):
    """A call that ended with the status that its context has.

    From a method that returns, Serve takes status and trailing metadata of the context; from one
    that raises, the status alone.
    """


class ServeContext:
    """What our handlers use of `grpc.aio.ServicerContext`, over what Serve gives.

    The deadline of a call does not travel through Serve's proxy, so `time_remaining` is None, and
    the service's own default holds; a caller that gives up is still noticed.
    """

    def __init__(self, context: RayServegRPCContext, requests: AsyncIterator[Message]) -> None:
        self._context = context
        self._requests = requests
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
        raise Refused(details)

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str]]) -> None:
        """What is sent at the end of the call."""
        self._context.set_trailing_metadata(list(metadata))

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """What the caller sent along."""
        metadata: Sequence[tuple[str, str]] = self._context.invocation_metadata()
        return metadata

    def peer(self) -> str:
        """gRPC's own word for the other side."""
        return str(self._context.peer())

    def time_remaining(self) -> float | None:
        """Not known here."""
        return None


async def single(
    handler: Handler, request: Message, context: RayServegRPCContext, nothing: Message
) -> Message:
    """The answer to one request, or `nothing` where the status says why."""
    ours = ServeContext(context, _once(request))
    try:
        await handler(None, ours)
    except Refused:
        return nothing
    answer = ours.answers.get_nowait()
    assert answer is not None
    return answer


async def several(
    handler: Handler, requests: AsyncIterator[Message], context: RayServegRPCContext
) -> AsyncIterator[Message]:
    """The answers to a stream of requests, as they come. Raises `Refused`."""
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


Handlers = Mapping[str, Handler]
"""By the method's name."""
