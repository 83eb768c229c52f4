"""State of one stream: tracking ids, joint smoothing, detector skipping."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import structlog

from sdpose_core.tracking import Following, PeopleTracker, Smoothing
from sdpose_core.types import Floats, Image
from service.errors import (
    ErrorCode,
    ServiceError,
    as_service_error,
    invalid_argument,
    without_frames,
)
from service.parameters import PoseParameters
from service.pipeline.results import PoseResult
from service.streams.resume import Resumable
from service.streams.settings import Drop, StreamSettings
from service.streams.slot import Frame, FrameSlot
from service.telemetry.calls import CLIENT_GONE, OK, current_call
from service.telemetry.metrics import Metrics

MAX_SEQUENCE = 2**64 - 1
MAX_TIMESTAMP_S = 2.0**63
"""Far beyond any clock, and far from where intervals are not finite any more."""
_ENDS_STREAM = (ErrorCode.UNAVAILABLE, ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED)

Estimate: TypeAlias = Callable[
    [bytes | Image, PoseParameters, Floats | None], Awaitable[PoseResult]
]
"""Poses one image, a file or pixels, as a separate request. Raises `ServiceError`."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FrameAnswer:
    """The outcome of one frame: its result, or its own error.

    `dropped` counts the frames dropped since the previous answer. `resume_token` names this stream
    to a later one, in the first answer of a stream with tracking.
    """

    sequence: int
    timestamp: float | None
    dropped: int
    outcome: PoseResult | ServiceError
    resume_token: str | None = None


class PoseStream:
    """One stream, made by `Streams.open`: frames in, one answer for each processed frame out.

    Settings come before the first frame, or stay at their defaults.
    """

    def __init__(
        self, slot: FrameSlot, estimate: Estimate, metrics: Metrics, resumable: Resumable
    ) -> None:
        self._slot = slot
        self._estimate = estimate
        self._frames = metrics.stream_frames
        self._track_seconds = metrics.stage_seconds.labels("track")
        self._resumable = resumable
        self._settings = StreamSettings()
        self._parameters = PoseParameters()
        self._following = Following(self._settings.detect_every)
        self._tracker: PeopleTracker | None = None
        self._resume_token = secrets.token_urlsafe(12)
        self._begun = False
        self._last_sequence: int | None = None
        self._answered = 0
        self._dropped = 0
        self._dropped_before = 0

    def configure(self, settings: StreamSettings, parameters: PoseParameters) -> None:
        """Takes the client's settings. Raises `ServiceError` after the first frame."""
        if self._begun:
            raise invalid_argument("config", "only the first message may carry it")
        self._settings, self._parameters = settings, parameters
        # If no frame is dropped the sender waits: there is time for every one.
        unhurried = settings.detect_every == "auto" and settings.drop is Drop.NONE
        self._following = Following(
            1 if unhurried else settings.detect_every, suppress=parameters.suppress is not False
        )

    async def drive(
        self,
        read: Coroutine[Any, Any, None],
        write: Callable[[FrameAnswer], Awaitable[None]],
    ) -> None:
        """Runs the stream of one client: reads and answers side by side, until either ends.

        Args:
            read: passes every frame of the client to `send`. The stream ends after the last one
                when it returns, and after the frame in flight when it raises `ServiceError`;
                another exception means that the client is gone, and ends the work for it.
            write: sends one answer.

        Raises what ends the stream: as `answer`, or what `read` or `write` raised.
        """
        reading = asyncio.create_task(self._read_to_end(read))
        answering = asyncio.create_task(self._answer_all(write))
        try:
            await asyncio.wait({reading, answering}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            await answering
        finally:
            reading.cancel()
            answering.cancel()
            await asyncio.gather(reading, answering, return_exceptions=True)

    async def send(
        self,
        image: bytes | Image,
        sequence: int | None = None,
        timestamp: float | None = None,
        boxes: Floats | None = None,
    ) -> None:
        """Takes one more frame; waits if none may be dropped, else it replaces one that waits.

        `sequence` must rise and may begin at 0; unset: the previous one plus one, first 1. Raises
        `ServiceError` invalid_argument.
        """
        if timestamp is not None:
            if not abs(timestamp) <= MAX_TIMESTAMP_S:  # also what is no number, and large integers
                raise invalid_argument("timestamp", "must be a number of seconds, less than 2^63")
            timestamp = float(timestamp)
        if not self._begun:
            await self._begin()
        if self._settings.drop is Drop.NONE:
            await self._slot.empty()
        frame = Frame(image, self._next_sequence(sequence), timestamp, boxes)
        if self._slot.offer(frame) is not None:
            self._dropped += 1
            self._frames.labels("dropped").inc()

    async def answer(self) -> FrameAnswer | None:
        """Processes the newest frame, as soon as there is one; None after the last.

        Raises the `ServiceError` that ends the stream: one given to `close`, unavailable, a key
        that no longer counts, or deadline_exceeded if no frame comes.
        """
        frame = await self._slot.take()
        if frame is None:
            return None
        dropped = self._dropped - self._dropped_before
        self._dropped_before = self._dropped
        outcome: PoseResult | ServiceError
        counted = CLIENT_GONE  # unless the estimate ends
        try:
            if frame.rejection is not None:
                raise frame.rejection
            outcome = await self._people(frame)
            counted = OK
        except ServiceError as error:
            counted = error.code.value
            if error.code in _ENDS_STREAM:
                raise
            outcome = without_frames(error)
        except Exception as error:  # noqa: BLE001 - logged here, sent without detail
            counted = ErrorCode.INTERNAL.value
            _log.exception("frame failed", sequence=frame.sequence)
            outcome = as_service_error(error)
        finally:
            self._frames.labels(counted).inc()
            self._slot.release(frame)
        self._answered += 1
        new_token = self._resume_token if self._tracker and self._answered == 1 else None
        return FrameAnswer(frame.sequence, frame.timestamp, dropped, outcome, new_token)

    def close(self, error: ServiceError) -> None:
        """Ends the stream with an error after the frame in flight; the first error counts."""
        self._slot.close(error)

    def end(self) -> None:
        """Keeps the identities for a later stream, and sums up in the call's log line."""
        if self._slot.clear() is not None:
            error = self._slot.error
            self._frames.labels(error.code.value if error else CLIENT_GONE).inc()
        details: dict[str, object] = {"frames": self._answered, "dropped": self._dropped}
        if self._tracker is not None:
            self._resumable.keep(self._resume_token, self._tracker)
            details["people"] = self._tracker.ids_given
        current_call().details.update(details)

    async def _read_to_end(self, read: Coroutine[Any, Any, None]) -> None:
        try:
            await read
        except ServiceError as error:
            self.close(error)
        else:
            self._slot.finish()

    async def _answer_all(self, write: Callable[[FrameAnswer], Awaitable[None]]) -> None:
        while (answer := await self.answer()) is not None:
            await write(answer)

    async def _begin(self) -> None:
        self._begun = True
        if not self._settings.tracking:
            return
        requested = self._settings.resume_token
        kept = self._resumable.take(requested) if requested else None
        if requested and kept is not None:
            self._resume_token = requested
        # In a thread: the first one of a process may import ultralytics, which takes a second.
        tracker = kept if kept is not None else await asyncio.to_thread(PeopleTracker)
        tracker.smooth(Smoothing() if self._settings.smoothing else None)
        self._tracker = tracker

    def _next_sequence(self, requested: int | None) -> int:
        last = self._last_sequence
        if requested is None:
            requested = 1 if last is None else last + 1
        if requested > MAX_SEQUENCE:
            raise invalid_argument("sequence", f"no number comes after {MAX_SEQUENCE}")
        if last is not None and requested <= last:
            raise invalid_argument("sequence", f"{requested} does not come after {last}")
        self._last_sequence = requested
        return requested

    async def _people(self, frame: Frame) -> PoseResult:
        """The people of one frame, tracked if the settings say so. Raises `ServiceError`."""
        if self._tracker is None:
            return await self._estimate(frame.image, self._parameters, frame.boxes)
        result = await self._followed(frame)
        if result is None:
            result = await self._estimate(frame.image, self._parameters, frame.boxes)
            size = (result.width, result.height)
            self._following.detected(result.poses, size, result.timings_ms["total"])
        began = time.perf_counter()
        when = frame.received_s if frame.timestamp is None else frame.timestamp
        poses = self._tracker.update(result.poses, when)
        seconds = time.perf_counter() - began
        self._track_seconds.observe(seconds)
        timings = {**result.timings_ms, "track": seconds * 1e3}
        timings["total"] += seconds * 1e3
        return replace(result, poses=poses, timings_ms=timings)

    async def _followed(self, frame: Frame) -> PoseResult | None:
        """The people at their last joints; None if detection is due, or lost one of them."""
        boxes = self._following.boxes(frame.received_s)
        if boxes is None or frame.boxes is not None:
            return None
        try:
            result = await self._estimate(frame.image, self._parameters, boxes)
        except ServiceError as error:
            if error.code is ErrorCode.INVALID_ARGUMENT:  # outside: the image has another size
                return None
            raise
        size = (result.width, result.height)
        poses = self._following.followed(result.poses, size, result.timings_ms["total"])
        return None if poses is None else replace(result, poses=poses)
