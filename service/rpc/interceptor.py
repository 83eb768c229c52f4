"""Interceptor of every call of the pose service: envelope, key check, translated errors.

Key and load are checked when the headers are there: a rejected call's message is never read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from sdpose_client.v1 import pose_pb2
from service.access.keys import Scope
from service.admission.incoming import Incoming
from service.errors import (
    ErrorCode,
    ServiceError,
    deadline_exceeded,
    invalid_argument,
    without_frames,
)
from service.rpc.callers import CURRENT, current_ticket, identified, text
from service.rpc.errors import GRPC_STATUS, REQUEST_ID_KEY, error_metadata
from service.rpc.wire import check_size, most_beside_images
from service.runtime.runtime import Runtime
from service.telemetry.calls import Call

_Read: TypeAlias = Callable[[Any], Any]
_SERVICE = "/sdpose.v1.PoseService/"
_SMALL = 64 * 2**10
_METHODS = pose_pb2.DESCRIPTOR.services_by_name["PoseService"].methods_by_name
_APIS = {"EstimatePose": "grpc_estimate", "StreamPose": "grpc_stream", "WatchCamera": "grpc_watch"}
_SCOPES = {"grpc_watch": Scope.CAMERAS}
_NAMES = {api: f"{_SERVICE[1:]}{method}" for method, api in _APIS.items()}

if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:  # generic in its type stubs only
    _Interceptor = grpc.aio.ServerInterceptor


class PoseCallInterceptor(_Interceptor):
    """Wraps the methods of `PoseService`; of health and reflection only what comes is checked.

    `largest_message` is the bound of a message in bytes.
    """

    def __init__(self, runtime: Runtime, largest_message: int) -> None:
        self._runtime = runtime
        self._incoming = Incoming(runtime.bodies, largest_message)
        settings = runtime.settings
        self._most_else = most_beside_images(settings.max_boxes)
        self._longest_s = settings.max_deadline_ms / 1e3

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Replaces the method's handler by one that does the rest."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        if not method.startswith(_SERVICE):
            return grpc.stream_stream_rpc_method_handler(
                partial(_of_library, handler), None, handler.response_serializer
            )
        # Without a deserializer of the library's: for bytes that are no message it would blame us.
        name = method.removeprefix(_SERVICE)
        read = partial(
            _message, handler.request_deserializer, _METHODS[name].input_type, self._most_else
        )
        if handler.request_streaming:
            behaviour = handler.stream_stream
        else:
            behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
        call = self._handler(name, behaviour, read)
        # Every method as a stream, to read its messages late: docs/decisions/0015-memory.md.
        return grpc.stream_stream_rpc_method_handler(call, None, handler.response_serializer)

    def handlers(self, servicer: Any) -> dict[str, Any]:
        """The methods of a servicer with all that belongs to a call, by name.

        For another server than gRPC's own, whose context reads and writes messages: called with
        None and that context.
        """
        return {
            name: self._handler(name, getattr(servicer, name), lambda message: message)
            for name in _APIS
        }

    def _handler(self, name: str, behaviour: Any, read: _Read) -> Any:
        make = self._stream if name == "StreamPose" else self._single
        return make(_APIS[name], behaviour, read)

    def _single(self, api: str, behaviour: Any, read: _Read) -> Any:
        async def answer(context: ServicerContext[Any, Any]) -> None:
            ticket = current_ticket()
            self._runtime.door.check(ticket)
            arrived = self._runtime.pipeline.announce()
            try:
                async with self._incoming.message(ticket.caller.share, ticket.patience_s):
                    message = await self._first(context)
            finally:
                arrived()
            request = read(message)
            del message  # docs/decisions/0015-memory.md
            answer = await behaviour(request, context)
            if answer is not None:
                await context.write(answer)

        return self._call(api, answer)

    def _stream(self, api: str, behaviour: Any, read: _Read) -> Any:
        async def answer(context: ServicerContext[Any, Any]) -> None:
            await behaviour(_messages(read, context), context)

        return self._call(api, answer)

    async def _first(self, context: ServicerContext[Any, Any]) -> bytes:
        # Not from the iterator: docs/decisions/0015-memory.md.
        try:
            async with asyncio.timeout(self._longest_s):
                message: bytes = await context.read()
        except TimeoutError:
            raise deadline_exceeded("while the message was read") from None
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise invalid_argument("message", "none came")
        return message

    def _call(
        self, api: str, answer: Callable[[ServicerContext[Any, Any]], Awaitable[None]]
    ) -> Any:
        """The handler that gives a call all but its answer."""

        async def call(_: object, context: ServicerContext[Any, Any]) -> None:
            rejection: ServiceError | None = None
            metadata = dict(context.invocation_metadata() or ())
            try:
                with self._runtime.calls.open(
                    _NAMES[api], lambda name: text(metadata.get(name)), api
                ) as opened:
                    context.set_trailing_metadata(((REQUEST_ID_KEY, opened.request_id),))
                    scope = _SCOPES.get(api, Scope.POSE)
                    caller = identified(self._runtime.access, metadata, context.peer(), scope)
                    opened.key = caller.name
                    CURRENT.set(self._runtime.door.ticket(caller, context.time_remaining()))
                    with self._runtime.door.call(caller):
                        await self._answered(answer, context, opened)
            except ServiceError as error:
                rejection = without_frames(error)
            # Out of the `except` block: docs/decisions/0015-memory.md.
            if rejection is not None:
                trailing = error_metadata(rejection, opened.request_id)
                await context.abort(GRPC_STATUS[rejection.code], rejection.message, trailing)

        return call

    @staticmethod
    async def _answered(
        answer: Callable[[ServicerContext[Any, Any]], Awaitable[None]],
        context: ServicerContext[Any, Any],
        call: Call,
    ) -> None:
        try:
            await answer(context)
        except asyncio.CancelledError:  # the client is gone or its deadline passed
            left_s = context.time_remaining()
            if left_s is not None and left_s <= 0:
                call.outcome = ErrorCode.DEADLINE_EXCEEDED.value
            raise


async def _of_library(handler: Any, _: object, context: ServicerContext[Any, Any]) -> None:
    """A method of another service than ours, whose library would blame us for bytes that it gets.

    Raises what the method raises.
    """
    read = partial(_small_message, handler.request_deserializer)
    try:
        if handler.request_streaming:
            async for answer in handler.stream_stream(_messages(read, context), context):
                await context.write(answer)
        else:
            async for request in _messages(read, context):
                if handler.response_streaming:
                    await handler.unary_stream(request, context)
                else:
                    await context.write(await handler.unary_unary(request, context))
                break
    except ServiceError as error:
        rejection = error
    else:
        return
    await context.abort(GRPC_STATUS[rejection.code], rejection.message)


def _small_message(deserialize: _Read, data: bytes) -> Any:
    if len(data) > _SMALL:
        raise ServiceError(ErrorCode.PAYLOAD_TOO_LARGE, f"message: takes at most {_SMALL} bytes")
    return _parsed(deserialize, data)


def _message(deserialize: _Read, kind: Descriptor, most: int, data: bytes) -> Any:
    check_size(data, kind, most)
    return _parsed(deserialize, data)


def _parsed(deserialize: _Read, data: bytes) -> Any:
    try:
        return deserialize(data)
    except DecodeError as error:
        raise invalid_argument("message", f"does not parse: {error}") from None


async def _messages(read: _Read, context: ServicerContext[Any, Any]) -> AsyncIterator[Any]:
    while (data := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        request = read(data)
        del data  # docs/decisions/0015-memory.md
        yield request
        del request  # docs/decisions/0015-memory.md
