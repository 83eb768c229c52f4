"""The three ways to send an image, each with its blocking client, as one function."""

from __future__ import annotations

import asyncio
import ssl
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


async def answers(way: str, address: str, **options: Any) -> list[PoseAnswer]:
    """The answers of a way's async and blocking client to one image each."""
    return [
        await _on_the_loop(way, address, **options),
        await asyncio.to_thread(_blocking, way, address, **options),
    ]


def trusting(way: str, ca: bytes, context: ssl.SSLContext) -> dict[str, Any]:
    """The options of a way's client that make it trust a CA."""
    return {"root_certificates": ca} if way == "grpc" else {"tls": context}


async def _on_the_loop(way: str, address: str, **options: Any) -> PoseAnswer:
    if way == "websocket":
        client = AsyncWebSocketPoseClient(address, **options)
        return _only([one async for one in client.stream([PNG], timeout_s=60)])
    kind = AsyncRestPoseClient if way == "rest" else AsyncGrpcPoseClient
    async with kind(address, retry=ONCE, **options) as front:
        return await front.estimate(PNG, timeout_s=60)


def _blocking(way: str, address: str, **options: Any) -> PoseAnswer:
    if way == "websocket":
        return _only(list(WebSocketPoseClient(address, **options).stream([PNG], timeout_s=60)))
    kind = RestPoseClient if way == "rest" else GrpcPoseClient
    with kind(address, retry=ONCE, **options) as front:
        return front.estimate(PNG, timeout_s=60)


def _only(given: list[Any]) -> PoseAnswer:
    (answer,) = given
    if isinstance(answer.outcome, ServiceError):
        raise answer.outcome
    assert isinstance(answer.outcome, PoseAnswer)
    return answer.outcome
