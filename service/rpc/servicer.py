"""The methods of the gRPC service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from grpc.aio import ServicerContext

from protos.sdpose.v1 import pose_pb2, pose_pb2_grpc
from service.errors import ErrorCode, ServiceError, as_service_error, invalid_argument
from service.parameters import PoseParameters, deadline_after
from service.rpc.convert import answer_of, options_of, parameters_of
from service.rpc.interceptor import current_request_id
from service.runtime import Runtime

Context = ServicerContext[Any, Any]


class PoseServicer(pose_pb2_grpc.PoseServiceServicer):
    """Calls the pipeline; errors travel as `ServiceError` to the interceptor."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings

    async def EstimatePose(
        self, request: pose_pb2.EstimatePoseRequest, context: Context
    ) -> pose_pb2.EstimatePoseResponse:
        """One image in, its people out."""
        started = time.monotonic()
        pipeline = self._runtime.pipeline
        parameters = parameters_of(request.options)
        boxes = request.boxes if request.HasField("boxes") else None
        left_s = context.time_remaining()
        result = await pipeline.estimate(
            request.image,
            options_of(parameters, boxes, self._settings.max_boxes),
            deadline=deadline_after(
                started,
                None if left_s is None else max(0.0, left_s) * 1e3,
                self._settings.max_deadline_ms,
            ),
            priority=parameters.priority,
        )
        return answer_of(result, current_request_id.get())

    async def StreamPose(
        self, request_iterator: AsyncIterator[pose_pb2.StreamPoseRequest], context: Context
    ) -> AsyncIterator[pose_pb2.StreamPoseResponse]:
        """Frames in, results out in order; the latest frame wins."""
        metrics = self._runtime.metrics
        inbox = _Inbox()
        reader = asyncio.create_task(inbox.fill(request_iterator))
        closing = asyncio.create_task(self._runtime.draining.wait())
        closing.add_done_callback(lambda _: inbox.close(_stopping()))
        metrics.streams_active.inc()
        try:
            while (taken := await inbox.take()) is not None:
                frame, dropped = taken
                metrics.stream_frames.labels("dropped").inc(dropped)
                answer = await self._answer(frame, inbox.parameters)
                answer.dropped = dropped
                yield answer
        finally:
            metrics.streams_active.dec()
            reader.cancel()
            closing.cancel()
            await asyncio.gather(reader, closing, return_exceptions=True)

    async def _answer(
        self, frame: pose_pb2.StreamPoseRequest, parameters: PoseParameters
    ) -> pose_pb2.StreamPoseResponse:
        answer = pose_pb2.StreamPoseResponse(sequence=frame.sequence)
        if frame.HasField("timestamp"):
            answer.timestamp = frame.timestamp
        outcome = "ok"
        self._runtime.begin()
        try:
            result = await self._runtime.pipeline.estimate(
                frame.image,
                options_of(parameters, None, self._settings.max_boxes),
                deadline=deadline_after(time.monotonic(), None, self._settings.max_deadline_ms),
                priority=parameters.priority,
            )
            answer.result.CopyFrom(answer_of(result, current_request_id.get()))
        except ServiceError as error:
            if error.code in (ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL):
                raise  # nothing of this one frame: the stream itself cannot go on
            outcome = error.code.value
            answer.error.CopyFrom(
                pose_pb2.FrameError(
                    code=error.code.value, message=error.message, field=error.field or ""
                )
            )
        finally:
            self._runtime.end()
            self._runtime.metrics.stream_frames.labels(outcome).inc()
        return answer


class _Inbox:
    """The newest frame of a stream, with a count of those that it pushed out."""

    def __init__(self) -> None:
        self.parameters = PoseParameters.model_validate({})
        self._frame: pose_pb2.StreamPoseRequest | None = None
        self._ended = False
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._dropped = 0
        self._last_sequence = 0

    async def fill(self, requests: AsyncIterator[pose_pb2.StreamPoseRequest]) -> None:
        """Reads until the caller ends the stream."""
        first = True
        try:
            async for request in requests:
                self._receive(request, first=first)
                first = False
        except Exception as error:  # noqa: BLE001 - handed to the one who takes the frames
            self.close(error)
        self._ended = True
        self._news.set()

    async def take(self) -> tuple[pose_pb2.StreamPoseRequest, int] | None:
        """The newest frame and how many it pushed out; None after the last.

        Raises what broke the stream.
        """
        while True:
            await self._news.wait()
            if self._error is not None:
                raise self._error
            if self._frame is not None:
                taken = self._frame, self._dropped
                self._frame, self._dropped = None, 0
                if not self._ended:
                    self._news.clear()
                return taken
            if self._ended:
                return None
            self._news.clear()

    def close(self, error: Exception) -> None:
        """Ends the stream with an error after the frame at work."""
        self._error = as_service_error(error)
        self._news.set()

    def _receive(self, request: pose_pb2.StreamPoseRequest, *, first: bool) -> None:
        if request.HasField("config"):
            if not first:
                raise invalid_argument("config", "only the first message may carry it")
            self.parameters = parameters_of(request.config.options)
            if not request.image:
                return
        sequence = request.sequence if request.HasField("sequence") else self._last_sequence + 1
        if sequence <= self._last_sequence:
            raise invalid_argument(
                "sequence", f"{sequence} does not come after {self._last_sequence}"
            )
        self._last_sequence = request.sequence = sequence
        if self._frame is not None:
            self._dropped += 1
        self._frame = request
        self._news.set()


def _stopping() -> ServiceError:
    return ServiceError(ErrorCode.UNAVAILABLE, "the service is draining", retry_after_s=2.0)
