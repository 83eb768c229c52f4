"""What every call of the pose service gets: the envelope, a key check, and translated errors.

Key and load are checked when the headers are there: a rejected call's message is never read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from service.errors import ErrorCode, ServiceError, deadline_exceeded, invalid_argument
from service.rpc.arrivals import Arrivals
from service.rpc.callers import CURRENT, identified, text
from service.rpc.errors import GRPC_STATUS, REQUEST_ID_KEY, error_metadata
from service.runtime.runtime import Runtime

_Read: TypeAlias = Callable[[Any], Any]
_SERVICE = "/sdpose.v1.PoseService/"
_APIS = {"EstimatePose": "grpc_estimate", "StreamPose": "grpc_stream", "WatchCamera": "grpc_watch"}
_NAMES = {api: f"{_SERVICE[1:]}{method}" for method, api in _APIS.items()}

if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:  # generic in its type stubs only
    _Interceptor = grpc.aio.ServerInterceptor


class PoseCallInterceptor(_Interceptor):
    """Wraps the methods of `PoseService`; health and reflection pass untouched.

    `largest_message` is the bound of a message in bytes.
    """

    def __init__(self, runtime: Runtime, largest_message: int) -> None:
        self._runtime = runtime
        self._arrivals = Arrivals(runtime.bodies, largest_message)
        self._longest_s = runtime.settings.max_deadline_ms / 1e3

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Replaces the method's handler by one that does the rest."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_SERVICE):
            return handler
        api = _APIS[method.removeprefix(_SERVICE)]
        # Without a deserializer of the library's: for bytes that are no message it would blame us.
        read = partial(_message, handler.request_deserializer)
        if handler.request_streaming:
            call = self._stream(api, handler.stream_stream, read)
        elif handler.response_streaming:
            call = self._single(api, handler.unary_stream, read)
        else:
            call = self._single(api, handler.unary_unary, read)
        # Whatever the method's kind: only this one leaves it to us when a message is read.
        return grpc.stream_stream_rpc_method_handler(call, None, handler.response_serializer)

    def _single(self, api: str, behaviour: Any, read: _Read) -> Any:
        async def call(data: AsyncIterator[bytes], context: ServicerContext[Any, Any]) -> None:
            async with self._call(api, context):
                caller = CURRENT.get()
                caller.check(requests=1)
                patience_s = self._patience_s(context)
                pipeline = self._runtime.check_admission(caller, patience_s)
                arrived = pipeline.announce()
                try:
                    async with self._arrivals.one(caller.share, patience_s):
                        message = await self._first(data)
                finally:
                    arrived()
                answer = await behaviour(read(message), context)
                if answer is not None:
                    await context.write(answer)

        return call

    def _stream(self, api: str, behaviour: Any, read: _Read) -> Any:
        async def call(data: AsyncIterator[bytes], context: ServicerContext[Any, Any]) -> None:
            async with self._call(api, context):
                await behaviour(_messages(read, data), context)

        return call

    async def _first(self, data: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._longest_s):
                message = await anext(data, None)
        except TimeoutError:
            raise deadline_exceeded("while the message was read") from None
        if message is None:
            raise invalid_argument("message", "none came")
        return message

    def _patience_s(self, context: ServicerContext[Any, Any]) -> float:
        left_s = context.time_remaining()
        return self._runtime.patience_s(None if left_s is None else left_s * 1e3)

    @asynccontextmanager
    async def _call(self, api: str, context: ServicerContext[Any, Any]) -> AsyncIterator[None]:
        metadata = dict(context.invocation_metadata() or ())
        try:
            with self._runtime.calls.open(
                _NAMES[api], lambda name: text(metadata.get(name)), api
            ) as call:
                context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
                caller = identified(self._runtime.access, metadata, context.peer())
                call.key = caller.name
                CURRENT.set(caller)
                try:
                    yield
                except asyncio.CancelledError:  # the client is gone or its deadline passed
                    left_s = context.time_remaining()
                    if left_s is not None and left_s <= 0:
                        call.outcome = ErrorCode.DEADLINE_EXCEEDED.value
                    raise
        except ServiceError as error:
            trailing = error_metadata(error, call.request_id)
            await context.abort(GRPC_STATUS[error.code], error.message, trailing)


def _message(deserialize: _Read, data: bytes) -> Any:
    try:
        return deserialize(data)
    except DecodeError as error:
        raise invalid_argument("message", f"does not parse: {error}") from None


async def _messages(read: _Read, data: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for each in data:
        yield read(each)
