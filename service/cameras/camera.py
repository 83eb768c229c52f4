"""One camera of the service: read in a thread, processed as a stream, reopened when it breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import structlog

from sdpose_core.io.addresses import shown
from sdpose_core.io.live import LiveSource, TimedImage, live_frames
from service.access.callers import Caller
from service.cameras.addresses import safe_route
from service.cameras.broadcast import Broadcast
from service.cameras.settings import CameraSettings
from service.errors import ServiceError
from service.pipeline.results import PoseResult
from service.streams.pose_stream import FrameAnswer, PoseStream
from service.telemetry.calls import Calls

ANSWERS_KEPT: Final = 8
"""Answers that wait for one watcher; the oldest is dropped first."""
_RETRY_S: Final = 2.0

_log = structlog.get_logger(__name__)


class CameraState(StrEnum):
    """State of the connection to a camera."""

    CONNECTING = "connecting"
    LIVE = "live"
    BROKEN = "broken"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Width and height in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """A camera at one moment.

    Attributes:
        name: the camera's name.
        address: its address without user and password.
        state: of the connection.
        problem: why no frames come; None while they do.
        image: size of its frames; None before the first.
        frames: number of frames processed.
        errors: number of them without a result.
        dropped: number of frames dropped for newer ones.
        reconnects: how often a broken connection came back.
        people: number of people in the last result.
        watchers: number of open subscriptions.
    """

    name: str
    address: str
    state: CameraState
    problem: str | None
    image: ImageSize | None
    frames: int
    errors: int
    dropped: int
    reconnects: int
    people: int
    watchers: int

    @property
    def live(self) -> bool:
        """Whether frames come."""
        return self.state is CameraState.LIVE


@dataclass(frozen=True, slots=True)
class CameraAnswer:
    """The outcome of one frame; its timestamp is seconds since 1970."""

    answer: FrameAnswer
    request_id: str


CameraEvent = CameraStatus | CameraAnswer


@dataclass(frozen=True, slots=True)
class CameraServices:
    """The parts of the service that a camera uses.

    Attributes:
        calls: opens the call that a camera's stream belongs to.
        open_stream: opens a stream on the account of a caller; raises `ServiceError`.
        draw: draws the poses of a result into its image, as JPEG, likewise.
        max_pixels: maximum width times height of a frame.
    """

    calls: Calls
    open_stream: Callable[[Caller], AbstractContextManager[PoseStream]]
    draw: Callable[[Caller, PoseResult], Awaitable[bytes]]
    max_pixels: int


class Camera:
    """Made on the event loop; `run` ends some time after `stop`, or as its source does.

    `owner` is the caller that added it; None: the operator, by the camera file.
    """

    def __init__(
        self, settings: CameraSettings, services: CameraServices, owner: Caller | None
    ) -> None:
        self.settings = settings
        self.owner = owner
        self._caller = owner or Caller(("camera", settings.name))
        self.events: Broadcast[CameraEvent] = Broadcast(ANSWERS_KEPT)
        self.pictures: Broadcast[bytes] = Broadcast(1)
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._source = LiveSource(
            settings.address,
            self._on_connection_change,
            # A redirect would lead to an address that no rule has checked.
            options={"max_redirects": "0"} if owner else None,
            max_pixels=services.max_pixels,
            route=safe_route if owner else nullcontext,
        )
        # The wait for frames blocks: each camera has a thread for it, so that none delays another.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"camera {settings.name}")
        self._images = live_frames(self._source.frames(), settings.fps, 1)
        self._began_s = time.time() - time.monotonic()
        self._problem: str | None = None
        self._drawing: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._ended = False
        self._frames = self._errors = self._dropped = self._people = 0
        self._size: ImageSize | None = None
        self._published: CameraStatus | None = None

    @property
    def status(self) -> CameraStatus:
        """The status now."""
        problem = self._problem or self._source.problem
        if self._ended:
            state = CameraState.ENDED
        elif problem is not None:
            state = CameraState.BROKEN
        else:
            state = CameraState.LIVE if self._frames else CameraState.CONNECTING
        return CameraStatus(
            self.settings.name,
            shown(self.settings.address),
            state,
            problem,
            self._size,
            self._frames,
            self._errors,
            self._dropped,
            self._source.reconnects,
            self._people,
            len(self.events.subscriptions) + len(self.pictures.subscriptions),
        )

    async def run(self) -> None:
        """Reads and processes until the source ends, or `stop`."""
        # Not as a context: leaving that waits for the thread, which would block the event loop.
        self._source.start()
        while not self._ended:
            # What fails here is in the log; a stream that cannot go on is tried again.
            with suppress(ServiceError):
                await self._stream()
            if not self._ended:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _RETRY_S)
                self._ended = self._stopping.is_set()
        self._publish_status()
        self._end_subscriptions()

    def stop(self) -> None:
        """Ends the reading and every subscription; does not wait for the thread."""
        self._source.stop()
        self._stopping.set()
        self._end_subscriptions()

    @property
    def reading(self) -> bool:
        """Whether native code still waits for the connection."""
        return self._source.reading

    def _end_subscriptions(self) -> None:
        self.events.close()
        self.pictures.close()

    async def _stream(self) -> None:
        name = f"camera {self.settings.name}"
        with self._services.calls.open(name, lambda _: None, None) as call:
            call.key = self._caller.name
            try:
                with self._services.open_stream(self._caller) as stream:
                    stream.configure(self.settings.stream, self.settings.parameters)
                    while (frame := await self._next()) is not None:
                        await self._process(stream, frame, call.request_id)
            except ServiceError as error:
                self._problem = error.message
                self._publish_status()
                raise
        self._ended = True
        self._thread.shutdown(wait=False)

    async def _next(self) -> TimedImage | None:
        return await self._loop.run_in_executor(self._thread, next, self._images, None)

    async def _process(self, stream: PoseStream, frame: TimedImage, request_id: str) -> None:
        # Not by `drive`, which reads ahead: the source has a newer frame when this one is answered.
        await stream.send(frame.image, frame.number, self._began_s + frame.ready_s)
        answer = await stream.answer()
        assert answer is not None, "a stream that is not finished answers each frame"
        self._dropped += frame.dropped
        self._frames += 1
        height, width = frame.image.shape[:2]
        self._problem, self._size = None, ImageSize(width, height)
        self._publish_changes()
        outcome = answer.outcome
        answer = replace(answer, dropped=frame.dropped, resume_token=None)
        self.events.publish(CameraAnswer(answer, request_id))
        if isinstance(outcome, ServiceError):
            self._errors += 1
            return
        self._people = len(outcome.poses)
        if self.pictures.subscriptions and (self._drawing is None or self._drawing.done()):
            self._drawing = asyncio.create_task(self._draw(replace(outcome, image=frame.image)))

    async def _draw(self, result: PoseResult) -> None:
        try:
            self.pictures.publish(await self._services.draw(self._caller, result))
        except ServiceError as error:  # the next frame is drawn again
            _log.info("not drawn", camera=self.settings.name, reason=error.message)

    def _on_connection_change(self, sentence: str) -> None:
        """Called in the reading thread."""
        _log.warning("camera line", camera=self.settings.name, line=sentence)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._publish_status)

    def _publish_status(self) -> None:
        self._published = self.status
        self.events.publish(self._published)

    def _publish_changes(self) -> None:
        now, before = self.status, self._published
        if before is None or (now.state, now.image) != (before.state, before.image):
            self._publish_status()
