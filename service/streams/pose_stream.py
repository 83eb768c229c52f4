"""One stream's frames as one story: identities, steady joints, and detection only when needed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from sdpose_core.tracking import Following, PeopleTracker, Smoothing
from sdpose_core.types import Floats, Image
from service.errors import ErrorCode, ServiceError, invalid_argument
from service.parameters import PoseParameters
from service.pipeline.results import PoseResult
from service.streams.resume import Resumable
from service.streams.sessions import FrameAnswer, ReceivedFrame, Session, Streams
from service.streams.settings import Drop, StreamSettings
from service.telemetry.calls import current_call
from service.telemetry.metrics import Metrics

MAX_TIMESTAMP_S = 2.0**63
"""Far beyond any clock, and far from where intervals are not finite any more."""


@contextmanager
def open_stream(
    streams: Streams,
    resumable: Resumable,
    estimate: Estimate,
    metrics: Metrics,
    share: Hashable = None,
) -> Iterator[PoseStream]:
    """One more stream, which the front end feeds and reads; `share` is whose it is.

    Raises `ServiceError` overloaded.
    """
    stream = PoseStream(estimate, metrics, resumable)
    with streams.open(stream.look, share) as session:
        stream.session = session
        try:
            yield stream
        finally:
            stream.end()


class Estimate(Protocol):
    """One image, a file or decoded, as a separate request. Raises `ServiceError`."""

    def __call__(
        self, image: bytes | Image, parameters: PoseParameters, boxes: Floats | None
    ) -> Awaitable[PoseResult]: ...


class PoseStream:
    """Made by `open_stream`. Settings come before the first frame, or stay as they are by default.

    Attributes:
        session: its frames and how it ends.
        resume_token: what a later stream names to keep these identities.
    """

    session: Session[PoseResult]

    def __init__(self, estimate: Estimate, metrics: Metrics, resumable: Resumable) -> None:
        self._estimate = estimate
        self._track_seconds = metrics.stage_seconds.labels("track")
        self._resumable = resumable
        self._settings = StreamSettings()
        self._parameters = PoseParameters()
        self._following = Following(self._settings.detect_every)
        self._begun = False
        self._token_told = False
        self.resume_token = secrets.token_urlsafe(12)
        self._tracker: PeopleTracker | None = None

    def configure(self, settings: StreamSettings, parameters: PoseParameters) -> None:
        """Takes the client's settings. Raises `ServiceError` after the first frame."""
        if self._begun:
            raise invalid_argument("config", "only the first message may carry it")
        self._settings, self._parameters = settings, parameters
        # Where no frame is dropped the sender waits: there is time for every one.
        unhurried = settings.detect_every == "auto" and settings.drop is Drop.NONE
        self._following = Following(
            1 if unhurried else settings.detect_every, suppress=parameters.suppress is not False
        )

    async def feed(
        self,
        image: bytes | Image,
        sequence: int | None = None,
        timestamp: float | None = None,
        boxes: Floats | None = None,
    ) -> None:
        """One more frame, as `Session.offer` takes it; waits where none may be dropped."""
        if timestamp is not None:
            if not abs(timestamp) <= MAX_TIMESTAMP_S:  # also what is no number, and large integers
                raise invalid_argument("timestamp", "must be a number of seconds, less than 2^63")
            timestamp = float(timestamp)
        self._begin()
        if self._settings.drop is Drop.NONE:
            await self.session.room()
        self.session.offer(image, sequence, timestamp, boxes)

    async def answer(self) -> FrameAnswer[PoseResult] | None:
        """As `Session.answer`."""
        return await self.session.answer()

    def token_to_tell(self) -> str | None:
        """The resume token, once: it belongs into the first answer."""
        if self._token_told or self._tracker is None:
            return None
        self._token_told = True
        return self.resume_token

    def end(self) -> None:
        """Keeps the identities for a stream to come, and sums up in the call's log line."""
        details: dict[str, object] = {
            "frames": self.session.answered,
            "dropped": self.session.dropped,
        }
        if self._tracker is not None:
            self._resumable.keep(self.resume_token, self._tracker)
            details["people"] = self._tracker.ids_given
        current_call().details.update(details)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        if not self._settings.tracking:
            return
        named = self._settings.resume_token
        kept = self._resumable.take(named) if named else None
        if named and kept is not None:
            self.resume_token = named
        self._tracker = kept or PeopleTracker()
        self._tracker.smooth(Smoothing() if self._settings.smoothing else None)

    async def look(self, frame: ReceivedFrame) -> PoseResult:
        """The people of one frame. Raises `ServiceError`."""
        if self._tracker is None:
            return await self._estimate(frame.image, self._parameters, frame.boxes)
        result = await self._looked(frame)
        began = time.perf_counter()
        when = frame.received_s if frame.timestamp is None else frame.timestamp
        poses = self._tracker.update(result.poses, when)
        seconds = time.perf_counter() - began
        self._track_seconds.observe(seconds)
        timings = {**result.timings_ms, "track": seconds * 1e3}
        timings["total"] += seconds * 1e3
        return replace(result, poses=poses, timings_ms=timings)

    async def _looked(self, frame: ReceivedFrame) -> PoseResult:
        """The people where their joints were; detected where that is due or meant nothing."""
        expected = self._following.boxes(frame.received_s)
        if frame.boxes is None and expected is not None:
            followed = await self._followed(frame.image, expected)
            if followed is not None:
                return followed
        result = await self._estimate(frame.image, self._parameters, frame.boxes)
        size = (result.width, result.height)
        self._following.detected(result.poses, size, result.timings_ms["total"])
        return result

    async def _followed(self, image: bytes | Image, boxes: Floats) -> PoseResult | None:
        try:
            result = await self._estimate(image, self._parameters, boxes)
        except ServiceError as error:
            if error.code is ErrorCode.INVALID_ARGUMENT:  # outside: the image has another size
                return None
            raise
        size = (result.width, result.height)
        poses = self._following.followed(result.poses, size, result.timings_ms["total"])
        return None if poses is None else replace(result, poses=poses)
