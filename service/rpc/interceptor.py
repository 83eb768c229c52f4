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

from service.access import check_key
from service.errors import ErrorCode, ServiceError, invalid_argument
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
    """Wraps the methods of `PoseService`; health and reflection pass untouched."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

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
        refusal = self._refusal(dict(handler_call_details.invocation_metadata or ()))
        if refusal is not None:
            # Whatever the method's kind: only this one answers without waiting for a message.
            return grpc.stream_stream_rpc_method_handler(
                self._refused(api, refusal), None, handler.response_serializer
            )
        # Without a deserializer of the library's: for bytes that are no message it would blame us.
        read = partial(_message, handler.request_deserializer)
        if handler.response_streaming and not handler.request_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(api, handler.unary_stream, read), None, handler.response_serializer
            )
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(api, handler.stream_stream, partial(_messages, read)),
                None,
                handler.response_serializer,
            )
        arrived = self._runtime.check_admission().announce()
        return grpc.unary_unary_rpc_method_handler(
            self._unary(api, handler.unary_unary, read, arrived), None, handler.response_serializer
        )

    def _unary(self, api: str, behaviour: Any, read: _Read, arrived: Callable[[], None]) -> Any:
        async def call(data: bytes, context: ServicerContext[Any, Any]) -> Any:
            arrived()
            async with self._call(api, context):
                return await behaviour(read(data), context)

        return call

    def _stream(self, api: str, behaviour: Any, read: _Read) -> Any:
        async def call(data: Any, context: ServicerContext[Any, Any]) -> None:
            async with self._call(api, context):
                await behaviour(read(data), context)

        return call

    def _refused(self, api: str, refusal: ServiceError) -> Any:
        async def call(requests: Any, context: ServicerContext[Any, Any]) -> None:
            async with self._call(api, context):
                raise refusal

        return call

    def _refusal(self, metadata: dict[str, str | bytes]) -> ServiceError | None:
        try:
            check_key(
                self._runtime.settings.api_keys,
                _text(metadata.get("x-api-key")),
                _text(metadata.get("authorization")),
            )
            self._runtime.check_admission()
        except ServiceError as error:
            return error
        return None

    @asynccontextmanager
    async def _call(self, api: str, context: ServicerContext[Any, Any]) -> AsyncIterator[None]:
        metadata = dict(context.invocation_metadata() or ())
        try:
            with self._runtime.calls.open(
                _NAMES[api], lambda name: _text(metadata.get(name)), api
            ) as call:
                context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
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


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value
