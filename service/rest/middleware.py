"""The ASGI middleware around every HTTP request: the call's envelope, and errors as problems.

Pure ASGI: the base-class kind of middleware hides a client's disconnect from the routes.
"""

from __future__ import annotations

import asyncio

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError, deadline_exceeded, invalid_argument, without_frames
from service.rest.callers import TICKET, ticket_of
from service.rest.connection import ClientGoneError
from service.rest.errors import problem
from service.runtime.runtime import Runtime

_MAX_PARAMETERS = 64
_APIS = {"/pose": "rest_pose", "/pose/overlay": "rest_overlay"}


class CallMiddleware:
    """Opens the envelope of each HTTP request; a WebSocket opens its own.

    `callers`: whether what looks at images is behind it.
    """

    def __init__(self, app: ASGIApp, *, runtime: Runtime, callers: bool = True) -> None:
        self._app = app
        self._apis = _APIS if callers else {}
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # A server that mounts us below a path, as Ray Serve does, names that path itself.
        prefix = scope.get("root_path") or self._runtime.settings.root_path
        path = _path(scope["path"], prefix)
        # As ASGI requires, whether or not a proxy has taken the prefix away.
        scope = {**scope, "path": prefix + path, "root_path": prefix}
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.details["status"] = message["status"]
                message.setdefault("headers", []).append(
                    (b"x-request-id", call.request_id.encode("latin-1"))
                )
            await send(message)

        name = f"{scope['method']} {path}"
        api = self._apis.get(path)
        connection = HTTPConnection(scope)
        try:
            with self._runtime.calls.open(name, connection.headers.get, api) as call:
                check_query(scope)
                if api is not None and scope["method"] == "POST":
                    # Rejected here at a tenth of the cost of a route: in an overload most are.
                    ticket = ticket_of(connection, self._runtime.access, self._runtime.door)
                    self._runtime.door.check(ticket)
                    scope[TICKET] = ticket
                await self._app(scope, self._bounded(receive), send_with_id)
        except ServiceError as error:
            if (
                "status" in call.details
            ):  # half an answer is sent: only a broken connection shows that it failed
                raise
            rejection = without_frames(error)
        else:
            return
        await problem(rejection, call.request_id)(scope, receive, send_with_id)

    def _bounded(self, receive: Receive) -> Receive:
        """Bounds the time in which a body arrives by the maximum time of a request.

        Raises `ServiceError` deadline_exceeded then, and `ClientGoneError` if it breaks off.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._runtime.settings.max_deadline_ms / 1e3
        whole = False

        async def bounded() -> Message:
            nonlocal whole
            if whole:  # what comes now is news of the connection
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise deadline_exceeded("while the body was read") from None
            if message["type"] == "http.disconnect":
                raise ClientGoneError("the body broke off")
            whole = not message.get("more_body", False)
            return message

        return bounded


def check_query(scope: Scope) -> None:
    """Counts the parameters before they are taken apart. Raises `ServiceError`."""
    if scope["query_string"].count(b"&") >= _MAX_PARAMETERS:
        raise invalid_argument("query", f"more than {_MAX_PARAMETERS} parameters")


def _path(path: str, prefix: str) -> str:
    """The path without the prefix of a proxy, and without a slash at its end."""
    if prefix and path.startswith(f"{prefix}/"):
        path = path.removeprefix(prefix)
    return path.rstrip("/") or "/"
