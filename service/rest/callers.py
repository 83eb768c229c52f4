"""Authentication over HTTP: the caller of a request or WebSocket, by its key."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from fastapi import Depends, Request, WebSocket
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection

from service.access.callers import Access, Caller
from service.access.keys import Scope
from service.admission.door import Door
from service.admission.ticket import Ticket
from service.errors import ErrorCode, ServiceError
from service.telemetry.calls import current_call

KEY_PROTOCOL = "sdpose.key."
Identify: TypeAlias = Callable[..., Coroutine[Any, Any, Caller]]

TICKET = "sdpose.ticket"
"""Name in the ASGI scope under which `CallMiddleware` leaves the ticket for the route."""

_ABOUT = "A key of the operator."
KEYS = (
    Depends(APIKeyHeader(name="X-API-Key", auto_error=False, description=_ABOUT)),
    Depends(HTTPBearer(auto_error=False, description=_ABOUT)),
)
"""Dependencies that only document how a key is sent."""


def ticket_of(request: HTTPConnection, access: Access, door: Door) -> Ticket:
    """The ticket of a request for poses.

    Raises `ServiceError` unauthenticated or permission_denied.
    """
    return door.ticket(_identified(request, access), _wanted_s(request.query_params))


def _identified(
    connection: HTTPConnection,
    access: Access,
    scope: Scope | None = Scope.POSE,
    offered: str | None = None,
) -> Caller:
    """The caller, whose key opens `scope`; `offered` is a key beside the headers."""
    headers = connection.headers
    address = connection.client.host if connection.client else None
    caller = access.identify(
        headers.get("x-api-key", offered), headers.get("authorization"), address
    )
    current_call().key = caller.name
    if scope is not None:
        access.check_scope(caller, scope)
    return caller


def _wanted_s(query: QueryParams) -> float | None:
    """The time that the query leaves; what is wrong there is reported when it is checked."""
    try:
        wanted_s = float(query.get("deadline_ms", "nan")) / 1e3
    except ValueError:
        return None
    return wanted_s if wanted_s > 0 else None


def callers_of(access: Access, scope: Scope | None = Scope.POSE) -> Identify:
    """The dependency of routes that are behind the keys: the caller, if it may use `scope`.

    None lets every key in.
    """

    async def caller(request: Request) -> Caller:  # async: else it would take a thread hop
        return _identified(request, access, scope)

    return caller


def caller_of_socket(websocket: WebSocket, access: Access, origins: Collection[str]) -> Caller:
    """The caller who opens a WebSocket.

    Raises `ServiceError` as `callers_of`, and for pages of other sites if there are no keys.
    Pages of `origins` are as welcome as the service's own.

    Browsers let any page open a WebSocket to any host, unlike a request whose answer it reads.
    """
    origin = websocket.headers.get("origin")
    if access.open and origin is not None and not {"*", origin} & set(origins):
        host = websocket.headers.get("host", "")
        if urlsplit(origin).netloc.lower() != host.lower():
            raise ServiceError(
                ErrorCode.UNAUTHENTICATED, "pages of other origins need an API key to be set"
            )
    return _identified(websocket, access, offered=_offered_key(websocket.scope["subprotocols"]))


def _offered_key(protocols: list[str]) -> str | None:
    for protocol in protocols:
        if protocol.startswith(KEY_PROTOCOL):
            encoded = protocol.removeprefix(KEY_PROTOCOL)
            try:
                padded = encoded + "=" * (-len(encoded) % 4)
                return base64.urlsafe_b64decode(padded).decode("latin-1")
            except binascii.Error:
                return ""  # a key was shown, and it is none of ours
    return None
