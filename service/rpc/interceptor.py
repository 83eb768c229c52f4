"""What every call of the pose service gets: an id, a key check, counts, and translated errors.

Key and load are looked at when the headers are there: a refused call's message is never read.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc.aio import ServicerContext

from service.access import check_key
from service.errors import ErrorCode, ServiceError, as_service_error
from service.rpc.errors import GRPC_STATUS, REQUEST_ID_KEY, error_metadata
from service.runtime.runtime import Runtime
from service.telemetry.request_ids import request_id_from

_SERVICE = "/sdpose.v1.PoseService/"
_APIS = {"EstimatePose": "grpc_estimate", "StreamPose": "grpc_stream"}
_NAMES = {api: f"{_SERVICE[1:]}{method}" for method, api in _APIS.items()}

current_request_id: ContextVar[str] = ContextVar("current_request_id")

_log = structlog.get_logger(__name__)

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
                self._refused(api, refusal),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(api, handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(api, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, api: str, behaviour: Any) -> Any:
        async def call(request: Any, context: ServicerContext[Any, Any]) -> Any:
            async with self._call(api, context):
                self._runtime.begin()
                try:
                    return await behaviour(request, context)
                finally:
                    self._runtime.end()

        return call

    def _stream(self, api: str, behaviour: Any) -> Any:
        async def call(requests: Any, context: ServicerContext[Any, Any]) -> None:
            async with self._call(api, context):
                await behaviour(requests, context)

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
            self._runtime.admit()
        except ServiceError as error:
            return error
        return None

    @asynccontextmanager
    async def _call(self, api: str, context: ServicerContext[Any, Any]) -> AsyncIterator[None]:
        started = time.monotonic()
        metadata = dict(context.invocation_metadata() or ())
        request_id = request_id_from(_text(metadata.get(REQUEST_ID_KEY)))
        outcome = "ok"
        current_request_id.set(request_id)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
            headers = {"traceparent": _text(metadata.get("traceparent")) or ""}
            with self._runtime.tracer.request(_NAMES[api], headers):
                yield
        except ServiceError as error:
            outcome = error.code.value
            _log.info("call refused", api=api, outcome=outcome, detail=error.message)
            await _abort(context, error, request_id)
        except Exception as error:  # noqa: BLE001 - the last catch: logged here, told without detail
            outcome = ErrorCode.INTERNAL.value
            _log.exception("call failed", api=api)
            await _abort(context, as_service_error(error), request_id)
        except BaseException:  # cancelled: the client is gone or its deadline passed
            left_s = context.time_remaining()
            late = left_s is not None and left_s <= 0
            outcome = ErrorCode.DEADLINE_EXCEEDED.value if late else "client_gone"
            raise
        finally:
            self._runtime.metrics.request(api, outcome, time.monotonic() - started)


async def _abort(context: ServicerContext[Any, Any], error: ServiceError, request_id: str) -> None:
    await context.abort(GRPC_STATUS[error.code], error.message, error_metadata(error, request_id))


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value
