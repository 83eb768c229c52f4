"""A client for the streams of each front end, so that one test runs over both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from sdpose_client import PoseAnswer, ServiceError, StreamAnswer
from sdpose_client.answers import Person, stream_answer_of
from sdpose_client.grpc_messages import error_from, stream_answer_from
from sdpose_client.v1 import pose_pb2
from sdpose_client.websocket_client import _closed
from tests.service.conftest import Service

Status = grpc.StatusCode | int


class Ended(Exception):
    """The service ended the stream: a gRPC status or a close code, and the error it tells."""

    def __init__(self, status: Status, error: ServiceError) -> None:
        super().__init__(f"{status} {error.code}: {error.message}")
        self.status = status
        self.error = error


class GrpcStream:
    """`StreamPose`."""

    api = "grpc_stream"

    def __init__(self, call: Any) -> None:
        self._call = call

    async def configure(self, settings: dict[str, Any]) -> None:
        if "drop" in settings:
            settings = {**settings, "drop": f"DROP_POLICY_{settings['drop'].upper()}"}
        await self._call.write(pose_pb2.StreamPoseRequest(config=settings))  # type: ignore[arg-type]

    async def send(self, image: bytes, **about: Any) -> None:
        if "boxes" in about:
            about["boxes"] = {"boxes": about["boxes"]}
        await self._call.write(pose_pb2.StreamPoseRequest(image=image, **about))

    async def answer(self) -> StreamAnswer:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise Ended(error.code(), error_from(error)) from None
        assert message is not grpc.aio.EOF, "the stream ended without an error"
        return stream_answer_from(message)

    async def finish(self) -> None:
        """Says that no frame comes any more, and sees the stream end well."""
        await self._call.done_writing()
        assert await self._call.read() is grpc.aio.EOF

    def leave(self) -> None:
        self._call.cancel()


class WebSocketStream:
    """`WS /pose/stream`."""

    api = "rest_stream"

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def configure(self, settings: dict[str, Any]) -> None:
        await self.connection.send(json.dumps({"config": settings}))

    async def send(self, image: bytes, **about: Any) -> None:
        if about:
            await self.connection.send(json.dumps({"frame": about}))
        await self.connection.send(image)

    async def answer(self) -> StreamAnswer:
        try:
            return stream_answer_of(json.loads(await self.connection.recv()))
        except ConnectionClosed as closed:
            status = 1006 if closed.rcvd is None else closed.rcvd.code
            raise Ended(status, _closed(closed)) from None

    async def finish(self) -> None:
        """A WebSocket has no half that could be closed alone."""
        await self.connection.close()

    def leave(self) -> None:
        """Without a close frame, as a client that is killed."""
        self.connection.transport.abort()


Stream = GrpcStream | WebSocketStream
Over = Callable[..., AbstractAsyncContextManager[Stream]]
_REFUSED = (grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionClosed)


async def _opened(stream: Stream, settings: dict[str, Any]) -> None:
    """Sends the settings; without tracking, answers show the marks of their images."""
    with suppress(*_REFUSED):  # by now perhaps: the test reads the reason
        await stream.configure({"tracking": False, **settings})


@asynccontextmanager
async def over_grpc(
    service: Service, key: str | None = None, **settings: Any
) -> AsyncIterator[Stream]:
    metadata = [("x-api-key", key)] if key else None
    stream = GrpcStream(service.grpc.stub.StreamPose(metadata=metadata))
    await _opened(stream, settings)
    try:
        yield stream
    finally:
        stream.leave()


@asynccontextmanager
async def over_websocket(
    service: Service,
    key: str | None = None,
    *,
    query: str = "",
    handshake: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[WebSocketStream]:
    url = f"{service.url.replace('http', 'ws')}/pose/stream{query}"
    if handshake is None:
        handshake = {"additional_headers": {"X-API-Key": key}} if key else {}
    # Pings would end a connection that a test leaves unread, and a queue would read for it.
    async with connect(url, proxy=None, max_queue=1, ping_interval=None, **handshake) as connection:
        stream = WebSocketStream(connection)
        await _opened(stream, settings)
        yield stream


async def end_of(stream: Stream) -> Ended:
    """How the service ends it, with no answer before."""
    with pytest.raises(Ended) as ended:
        await stream.answer()
    return ended.value


def people_of(answer: StreamAnswer) -> tuple[Person, ...]:
    assert isinstance(answer.outcome, PoseAnswer), answer.outcome
    return answer.outcome.people


def mark_of(answer: StreamAnswer) -> float:
    """The mark of the image, by the fake's first person."""
    return people_of(answer)[0].keypoints[0].x


def counted(service: Service, outcome: str) -> float:
    """The frames of one outcome so far."""
    return float(service.runtime.metrics.stream_frames.labels(outcome)._value.get())
