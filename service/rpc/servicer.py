"""The methods of the gRPC service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from grpc.aio import ServicerContext

from protos.sdpose.v1 import pose_pb2, pose_pb2_grpc
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
from service.streams.pose_stream import PoseStream
from service.telemetry.calls import current_call

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
        unread: asyncio.Task[None] | None = None
        with self._runtime.open_stream(current_ticket().caller) as stream:
            async with stream.session.fed_by(self._read(request_iterator, stream)):
                while unread is None and (answer := await stream.answer()) is not None:
                    message = frame_answer_of(
                        answer, current_call().request_id, stream.token_to_tell()
                    )
                    unread = await self._write(context, message)
        if unread is not None:
            # No status can be sent before this message. The stream's place is free by now.
            await unread
            raise deadline_exceeded("while the client did not read")

    async def WatchCamera(self, request: pose_pb2.WatchCameraRequest, context: Context) -> None:
        """A camera's status, then its answers and every change."""
        unread: asyncio.Task[None] | None = None
        with self._runtime.cameras.watch(request.name, current_ticket().caller) as (
            status,
            watcher,
        ):
            unread = await self._write(context, camera_event_of(status))
            while unread is None and (event := await anext(watcher, None)) is not None:
                unread = await self._write(context, camera_event_of(event))
        if unread is not None:
            await unread
            raise deadline_exceeded("while the client did not read")

    async def _read(
        self, requests: AsyncIterator[pose_pb2.StreamPoseRequest], stream: PoseStream
    ) -> None:
        """Feeds every frame until the client sends no more. Raises `ServiceError`."""
        first = True
        async for request in requests:
            if request.HasField("config"):
                if not first:
                    raise invalid_argument("config", "only the first message may carry it")
                stream.configure(*stream_settings_of(request.config))
            if request.image or not request.HasField("config"):
                await stream.feed(
                    request.image,
                    request.sequence if request.HasField("sequence") else None,
                    request.timestamp if request.HasField("timestamp") else None,
                    boxes_of(request, self._settings.max_boxes),
                )
            first = False
            del request  # else it stays while the next one is awaited

    async def _write(
        self, context: Context, message: pose_pb2.StreamPoseResponse | pose_pb2.WatchCameraResponse
    ) -> asyncio.Task[None] | None:
        """Sends one answer; the sending itself where the client's side stays full for too long."""
        writing = asyncio.ensure_future(_sent(context, message))
        try:
            await asyncio.wait({writing}, timeout=self._settings.max_deadline_ms / 1e3)
        except asyncio.CancelledError:
            writing.cancel()
            raise
        if not writing.done():
            return writing
        writing.result()
        return None


async def _sent(
    context: Context, message: pose_pb2.StreamPoseResponse | pose_pb2.WatchCameraResponse
) -> None:
    await context.write(message)
