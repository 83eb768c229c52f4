"""The three ways to send an image, each with its blocking client, as one function."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from sdpose_client import (
    AsyncGrpcPoseClient,
    AsyncRestPoseClient,
    AsyncWebSocketPoseClient,
    GrpcPoseClient,
    PoseAnswer,
    RestPoseClient,
    ServiceError,
    WebSocketPoseClient,
)
from tests.fakes import PNG
from tests.service.conftest import ONCE, Service

WAYS = ("rest", "grpc", "websocket")


def address_of(service: Service, way: str) -> str:
    """What the client of a way takes as its first argument."""
    return service.target if way == "grpc" else service.url


async def answers(
    way: str, address: str, *, timeout_s: float = 60, **options: Any
) -> list[PoseAnswer]:
    """The answers of a way's async and blocking client to one image each, or to raise the same.

    Raises the `ServiceError` of the async client; fails if the blocking one has another.
    """
    calls: tuple[Callable[[], Awaitable[PoseAnswer]], ...] = (
        lambda: _on_the_loop(way, address, timeout_s, **options),
        lambda: asyncio.to_thread(_blocking, way, address, timeout_s, **options),
    )
    errors, given = [], []
    for call in calls:
        try:
            given.append(await call())
        except ServiceError as error:
            errors.append(error)
    if errors:
        assert len({(error.code, error.message, error.field) for error in errors}) == 1, errors
        assert not given
        raise errors[0]
    return given


def trusting(way: str, ca: bytes, context: ssl.SSLContext) -> dict[str, Any]:
    """The options of a way's client that make it trust a CA."""
    return {"root_certificates": ca} if way == "grpc" else {"tls": context}


async def _on_the_loop(way: str, address: str, timeout_s: float, **options: Any) -> PoseAnswer:
    if way == "websocket":
        client = AsyncWebSocketPoseClient(address, **options)
        return _only([one async for one in client.stream([PNG], timeout_s=timeout_s)])
    kind = AsyncRestPoseClient if way == "rest" else AsyncGrpcPoseClient
    async with kind(address, retry=ONCE, **options) as front:
        return await front.estimate(PNG, timeout_s=timeout_s)


def _blocking(way: str, address: str, timeout_s: float, **options: Any) -> PoseAnswer:
    if way == "websocket":
        client = WebSocketPoseClient(address, **options)
        return _only(list(client.stream([PNG], timeout_s=timeout_s)))
    kind = RestPoseClient if way == "rest" else GrpcPoseClient
    with kind(address, retry=ONCE, **options) as front:
        return front.estimate(PNG, timeout_s=timeout_s)


def _only(given: list[Any]) -> PoseAnswer:
    (answer,) = given
    if isinstance(answer.outcome, ServiceError):
        raise answer.outcome
    assert isinstance(answer.outcome, PoseAnswer)
    return answer.outcome
