"""The methods of the gRPC service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from grpc.aio import ServicerContext

from sdpose_client.v1 import pose_pb2, pose_pb2_grpc
from service.errors import deadline_exceeded, invalid_argument
from service.rpc.callers import current_ticket
from service.rpc.convert import (
    answer_of,
    boxes_of,
    camera_event_of,
    frame_answer_of,
    parameters_of,
    stream_settings_of,
)
from service.runtime.runtime import Runtime
from service.streams.pose_stream import FrameAnswer, PoseStream
from service.telemetry.calls import current_call

Context = ServicerContext[Any, Any]
Message: TypeAlias = pose_pb2.StreamPoseResponse | pose_pb2.WatchCameraResponse


class PoseServicer(pose_pb2_grpc.PoseServiceServicer):
    """Calls the pipeline; errors travel as `ServiceError` to the interceptor."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings

    async def EstimatePose(
        self, request: pose_pb2.EstimatePoseRequest, context: Context
    ) -> pose_pb2.EstimatePoseResponse:
        """One image in, its people out."""
        parameters = parameters_of(request.options)
        boxes = boxes_of(request, self._settings.max_boxes)
        ticket = current_ticket()
        with self._runtime.door.enter(ticket) as admission:
            admission.hold(len(request.image))
            turn = ticket.turn(parameters.priority)
            result = await self._runtime.pipeline.estimate(
                request.image, parameters, boxes, turn=turn
            )
            admission.answered(len(result.poses))
        return answer_of(result, current_call().request_id)

    async def StreamPose(
        self, request_iterator: AsyncIterator[pose_pb2.StreamPoseRequest], context: Context
    ) -> None:
        """Frames in, answers out in order."""
        async with self._writing(context) as write:
            with self._runtime.open_stream(current_ticket().caller) as stream:

                async def write_answer(answer: FrameAnswer) -> None:
                    await write(frame_answer_of(answer, current_call().request_id))

                await stream.drive(self._read(request_iterator, stream), write_answer)

    async def WatchCamera(self, request: pose_pb2.WatchCameraRequest, context: Context) -> None:
        """A camera's status, then its answers and every change."""
        async with self._writing(context) as write:
            with self._runtime.cameras.watch(request.name, current_ticket().caller) as (
                status,
                events,
            ):
                await write(camera_event_of(status))
                async for event in events:
                    await write(camera_event_of(event))

    async def _read(
        self, requests: AsyncIterator[pose_pb2.StreamPoseRequest], stream: PoseStream
    ) -> None:
        """Passes every frame on until the client sends no more. Raises `ServiceError`."""
        first = True
        async for request in requests:
            if request.HasField("config"):
                if not first:
                    raise invalid_argument("config", "only the first message may carry it")
                stream.configure(*stream_settings_of(request.config))
            if request.image or not request.HasField("config"):
                await stream.send(
                    request.image,
                    request.sequence if request.HasField("sequence") else None,
                    request.timestamp if request.HasField("timestamp") else None,
                    boxes_of(request, self._settings.max_boxes),
                )
            first = False
            del request  # docs/decisions/0015-memory.md

    @asynccontextmanager
    async def _writing(
        self, context: Context
    ) -> AsyncIterator[Callable[[Message], Awaitable[None]]]:
        """Gives the function that sends one message.

        Ends the block with deadline_exceeded if the client does not read for so long.
        """

        async def write(message: Message) -> None:
            writing = asyncio.ensure_future(context.write(message))
            try:
                await asyncio.wait({writing}, timeout=self._settings.max_deadline_ms / 1e3)
            except asyncio.CancelledError:
                writing.cancel()
                raise
            if not writing.done():
                raise _UnreadError(writing)
            writing.result()

        try:
            yield write
        except _UnreadError as unread:
            # No status can be sent before this message. What the block held is free by now.
            await unread.writing
            raise deadline_exceeded("while the client did not read") from None


class _UnreadError(Exception):
    """The client's side stays full; `writing` ends when it reads, or leaves."""

    def __init__(self, writing: asyncio.Future[None]) -> None:
        self.writing = writing
