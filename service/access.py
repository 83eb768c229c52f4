"""Who may call: keys compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from service.errors import ErrorCode, ServiceError


def check_key(keys: Collection[str], api_key: str | None, authorization: str | None) -> None:
    """Raises unauthenticated unless a key matches; no keys configured lets everyone in.

    `api_key` is the value of `X-API-Key`, `authorization` that of `Authorization: Bearer KEY`.
    """
    if not keys:
        return
    shown = api_key
    if shown is None and authorization is not None:
        scheme, _, token = authorization.partition(" ")
        shown = token.strip() if scheme.lower() == "bearer" else None
    if shown is None:
        raise ServiceError(ErrorCode.UNAUTHENTICATED, "an API key is required")
    given = shown.encode()
    if not any(hmac.compare_digest(given, key.encode()) for key in keys):
        raise ServiceError(ErrorCode.UNAUTHENTICATED, "the API key is not known")
