"""Authentication over gRPC: the caller, by the key in the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from urllib.parse import unquote

from service.access.callers import Access, Caller
from service.access.keys import Scope
from service.admission.ticket import Ticket

CURRENT: ContextVar[Ticket] = ContextVar("current_ticket")


def current_ticket() -> Ticket:
    """The ticket of the call that the running method answers."""
    return CURRENT.get()


def identified(
    access: Access, metadata: Mapping[str, str | bytes], peer: str, scope: Scope
) -> Caller:
    """The caller, if its key opens `scope`.

    Raises `ServiceError` unauthenticated or permission_denied.

    `peer` is gRPC's own word for the other side, such as `ipv4:127.0.0.1:50123`.
    """
    caller = access.identify(
        text(metadata.get("x-api-key")), text(metadata.get("authorization")), _address(peer)
    )
    access.check_scope(caller, scope)
    return caller


def text(value: str | bytes | None) -> str | None:
    """A value of metadata as text."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _address(peer: str) -> str:
    kind, _, rest = unquote(peer).partition(":")
    if kind in ("ipv4", "ipv6"):
        return rest.rpartition(":")[0].strip("[]")
    return peer
