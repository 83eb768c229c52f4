"""Typed clients of the service: sync and async, over REST, gRPC and, for streams, WebSockets.

All raise `ServiceError` with the code that the service gave, retry `overloaded` and
`unavailable` as the service asks, and keep a deadline over all tries.
"""

from service.answers import Box, Keypoint, Person, PoseAnswer, StreamAnswer
from service.client.grpc_client import AsyncGrpcPoseClient, GrpcPoseClient
from service.client.reconnect import Reconnect
from service.client.requests import Ask, StreamAsk, StreamFrame
from service.client.rest_client import AsyncRestPoseClient, RestPoseClient
from service.client.retry import Retry
from service.client.websocket_client import AsyncWebSocketPoseClient, WebSocketPoseClient
from service.errors import ErrorCode, ServiceError

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
