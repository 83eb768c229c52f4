"""The ASGI middleware around everything: ids, the last catch, counts and the request log.

Pure ASGI: the base-class kind of middleware hides a client's going away from the routes.
"""

from __future__ import annotations

import logging
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ErrorCode, as_service_error
from service.rest.context import CONTEXT_KEY, RequestContext
from service.rest.errors import problem
from service.runtime.runtime import Runtime
from service.telemetry.request_ids import request_id_from

_APIS = {"/pose": "rest_pose", "/pose/overlay": "rest_overlay"}

_log = structlog.get_logger(__name__)


class RequestContextMiddleware:
    """Gives every request an id, answers what nothing else caught, counts and logs the end."""

    def __init__(self, app: ASGIApp, *, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        context = RequestContext(request_id_from(_header(scope, b"x-request-id")))
        scope[CONTEXT_KEY] = context
        with structlog.contextvars.bound_contextvars(request_id=context.request_id):
            if scope["type"] == "websocket":
                await self._app(scope, receive, send)
            else:
                await self._http(scope, receive, send, context)

    async def _http(
        self, scope: Scope, receive: Receive, send: Send, context: RequestContext
    ) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                message.setdefault("headers", []).append(
                    (b"x-request-id", context.request_id.encode("latin-1"))
                )
            await send(message)

        api = _APIS.get(scope["path"])
        if api:
            self._runtime.begin()
        try:
            if api:
                headers = {"traceparent": _header(scope, b"traceparent") or ""}
                with self._runtime.tracer.request(f"POST {scope['path']}", headers):
                    await self._app(scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except Exception as error:
            context.outcome = ErrorCode.INTERNAL.value
            _log.exception("request failed", path=scope["path"])
            if context.status:  # half an answer is out: only breaking off tells the caller
                raise
            await problem(as_service_error(error), context.request_id)(scope, receive, send_with_id)
        finally:
            seconds = time.monotonic() - context.started
            if api:
                self._runtime.end()
                self._runtime.metrics.request(api, context.outcome, seconds)
            _log.log(
                logging.DEBUG if context.outcome == "ok" or not api else logging.INFO,
                "request",
                path=scope["path"],
                status=context.status,
                outcome=context.outcome,
                ms=round(seconds * 1e3, 2),
            )


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            decoded: str = value.decode("latin-1")
            return decoded
    return None
