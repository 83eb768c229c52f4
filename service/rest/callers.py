"""Who calls over HTTP, by the key that a request or a WebSocket shows."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Coroutine
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from fastapi import Depends, Request, WebSocket
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope as AsgiScope

from service.access.callers import Access, Caller
from service.access.keys import Scope
from service.admission.door import Door
from service.admission.ticket import Ticket
from service.errors import ErrorCode, ServiceError
from service.telemetry.calls import current_call

KEY_PROTOCOL = "sdpose.key."
Identify: TypeAlias = Callable[..., Coroutine[Any, Any, Caller]]

TICKET = "sdpose.ticket"
"""Of a scope that `CallMiddleware` has let in to a route which looks at images."""

_api_key = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key of the operator.")
_bearer = HTTPBearer(auto_error=False, description="A key of the operator.")
KEYS = (Depends(_api_key), Depends(_bearer))
"""Dependencies that only tell the API's document how a key is shown."""


def ticket_of(scope: AsgiScope, headers: Headers, access: Access, door: Door) -> Ticket:
    """That of a request for poses. Raises `ServiceError` unauthenticated or permission_denied."""
    address = scope["client"][0] if scope.get("client") else None
    caller = access.identify(headers.get("x-api-key"), headers.get("authorization"), address)
    current_call().key = caller.name
    access.check_scope(caller, Scope.POSE)
    return door.ticket(caller, _wanted_s(QueryParams(scope["query_string"])))


def _wanted_s(query: QueryParams) -> float | None:
    """The time that the query leaves; what is wrong there is reported when it is checked."""
    try:
        wanted_s = float(query.get("deadline_ms", "nan")) / 1e3
    except ValueError:
        return None
    return wanted_s if wanted_s > 0 else None


def callers_of(access: Access, scope: Scope | None = Scope.POSE) -> Identify:
    """The dependency of routes that are behind the keys: the caller, where it may use `scope`.

    None lets every key in.
    """

    async def caller(  # async: a plain function would take a thread hop
        request: Request,
        api_key: Annotated[str | None, Depends(_api_key)],
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        authorization = f"Bearer {bearer.credentials}" if bearer else None
        address = request.client.host if request.client else None
        found = access.identify(api_key, authorization, address)
        current_call().key = found.name
        if scope is not None:
            access.check_scope(found, scope)
        return found

    return caller


def caller_of_socket(websocket: WebSocket, access: Access, origins: Collection[str]) -> Caller:
    """Who opens a WebSocket.

    Raises `ServiceError` as `callers_of`, and for pages of other sites where there are no keys.
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
    found = access.identify(
        websocket.headers.get("x-api-key", _offered_key(websocket.scope["subprotocols"])),
        websocket.headers.get("authorization"),
        websocket.client.host if websocket.client else None,
    )
    current_call().key = found.name
    access.check_scope(found, Scope.POSE)
    return found


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
