"""Typed clients of the service: sync and async, over REST, gRPC and, for streams, WebSockets.

All raise `ServiceError` with the code that the service gave, retry `overloaded` and
`unavailable` as the service asks, and keep a deadline over all tries.

A client's library (grpc, httpx, websockets) is imported with the client's first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdpose_client.answers import Box, Keypoint, Person, PoseAnswer, StreamAnswer
    from sdpose_client.errors import ErrorCode, ServiceError
    from sdpose_client.grpc_client import AsyncGrpcPoseClient, GrpcPoseClient
    from sdpose_client.reconnect import Reconnect
    from sdpose_client.requests import Ask, StreamAsk, StreamFrame
    from sdpose_client.rest_client import AsyncRestPoseClient, RestPoseClient
    from sdpose_client.retry import Retry
    from sdpose_client.websocket_client import AsyncWebSocketPoseClient, WebSocketPoseClient

__all__ = [
    "Ask",
    "AsyncGrpcPoseClient",
    "AsyncRestPoseClient",
    "AsyncWebSocketPoseClient",
    "Box",
    "ErrorCode",
    "GrpcPoseClient",
    "Keypoint",
    "Person",
    "PoseAnswer",
    "Reconnect",
    "RestPoseClient",
    "Retry",
    "ServiceError",
    "StreamAnswer",
    "StreamAsk",
    "StreamFrame",
    "WebSocketPoseClient",
]

_MODULES = {
    "answers": ("Box", "Keypoint", "Person", "PoseAnswer", "StreamAnswer"),
    "errors": ("ErrorCode", "ServiceError"),
    "grpc_client": ("AsyncGrpcPoseClient", "GrpcPoseClient"),
    "reconnect": ("Reconnect",),
    "requests": ("Ask", "StreamAsk", "StreamFrame"),
    "rest_client": ("AsyncRestPoseClient", "RestPoseClient"),
    "retry": ("Retry",),
    "websocket_client": ("AsyncWebSocketPoseClient", "WebSocketPoseClient"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # else type checkers would take any name for one of this package

    def __getattr__(name: str) -> object:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return __all__
