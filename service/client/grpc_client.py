"""Clients over gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import grpc

from protos.sdpose.v1 import pose_pb2, pose_pb2_grpc
from service.client.answers import Ask, Box, Keypoint, Person, PoseAnswer
from service.client.retry import Retry, deadline_from, left_s
from service.errors import ErrorCode, ServiceError

_NOTHING_ASKED = Ask()
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.max_send_message_length", 64 * 2**20),
)
# For answers that never reached our own code, such as an oversized message or a dead port.
_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: ErrorCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED: ErrorCode.UNAUTHENTICATED,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE: ErrorCode.UNAVAILABLE,
}
_PRIORITIES = {
    None: pose_pb2.PRIORITY_UNSPECIFIED,
    "high": pose_pb2.PRIORITY_HIGH,
    "normal": pose_pb2.PRIORITY_NORMAL,
    "low": pose_pb2.PRIORITY_LOW,
}


class GrpcPoseClient:
    """Blocking client. `target` such as `localhost:8001`; close it, or use `with`."""

    def __init__(
        self,
        target: str = "localhost:8001",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._stub = pose_pb2_grpc.PoseServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._api_key = api_key
        self._retry = retry or Retry()

    def estimate(
        self,
        image: bytes,
        ask: Ask = _NOTHING_ASKED,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> PoseAnswer:
        """The people of one image file. Raises `ServiceError`."""
        message = request_message(image, ask)
        metadata = _metadata(self._api_key, request_id)
        deadline, tried = deadline_from(timeout_s), 0
        while True:
            left = left_s(deadline)
            tried += 1
            try:
                return answer_from(
                    self._stub.EstimatePose(message, timeout=left, metadata=metadata)
                )
            except grpc.RpcError as error:
                trouble = error_from(error)
            time.sleep(self._retry.pause_s(tried, trouble, deadline))

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def __enter__(self) -> GrpcPoseClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncGrpcPoseClient:
    """The same on an event loop; close it, or use `async with`."""

    def __init__(
        self,
        target: str = "localhost:8001",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self.stub: Any = pose_pb2_grpc.PoseServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._api_key = api_key
        self._retry = retry or Retry()

    async def estimate(
        self,
        image: bytes,
        ask: Ask = _NOTHING_ASKED,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> PoseAnswer:
        """The people of one image file. Raises `ServiceError`."""
        message = request_message(image, ask)
        metadata = _metadata(self._api_key, request_id)
        deadline, tried = deadline_from(timeout_s), 0
        while True:
            left = left_s(deadline)
            tried += 1
            try:
                return answer_from(
                    await self.stub.EstimatePose(message, timeout=left, metadata=metadata)
                )
            except grpc.RpcError as error:
                trouble = error_from(error)
            await asyncio.sleep(self._retry.pause_s(tried, trouble, deadline))

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)

    async def __aenter__(self) -> AsyncGrpcPoseClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def request_message(image: bytes, ask: Ask) -> pose_pb2.EstimatePoseRequest:
    """The message that asks for one image."""
    options = pose_pb2.PoseOptions(
        max_people=ask.max_people,
        min_score=ask.min_score,
        min_keypoint_score=ask.min_keypoint_score,
        cycles=0 if ask.cycles == "auto" else ask.cycles,
        flip_test=ask.flip_test,
        priority=_PRIORITIES[ask.priority],
    )
    message = pose_pb2.EstimatePoseRequest(image=image, options=options)
    if ask.boxes is not None:
        message.boxes.SetInParent()
        for box in ask.boxes:
            message.boxes.boxes.add(x=box.x, y=box.y, width=box.width, height=box.height)
    return message


def answer_from(message: pose_pb2.EstimatePoseResponse) -> PoseAnswer:
    """The typed answer of a message."""
    models = message.models
    return PoseAnswer(
        people=tuple(
            Person(
                Box(person.box.x, person.box.y, person.box.width, person.box.height),
                person.score,
                tuple(
                    Keypoint(point.name, point.x, point.y, point.score)
                    for point in person.keypoints
                ),
                person.id if person.HasField("id") else None,
            )
            for person in message.people
        ),
        width=message.image.width,
        height=message.image.height,
        timings_ms=dict(message.timings_ms),
        models={
            "student": models.student,
            "detector": models.detector,
            "backend": models.backend,
            "device": models.device,
        },
        request_id=message.request_id,
    )


def error_from(error: grpc.RpcError) -> ServiceError:
    """The service's own error out of a failed call."""
    trailing: Mapping[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
    code = trailing.get("sdpose-error-code")
    if code is None and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # Said by gRPC itself, which has one status for a message too large and for too many calls.
        too_large = "larger than max" in (error.details() or "")
        code = ErrorCode.PAYLOAD_TOO_LARGE if too_large else ErrorCode.OVERLOADED
    after = trailing.get("retry-after")
    return ServiceError(
        ErrorCode(code) if code else _BY_STATUS.get(error.code(), ErrorCode.INTERNAL),
        error.details() or error.code().name.lower(),
        field=trailing.get("sdpose-error-field"),
        retry_after_s=float(after) if after else None,
    )


def _metadata(api_key: str | None, request_id: str | None) -> list[tuple[str, str]]:
    pairs = (("x-api-key", api_key), ("x-request-id", request_id))
    return [(name, value) for name, value in pairs if value is not None]
