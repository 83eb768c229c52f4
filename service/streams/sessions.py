"""Streams of frames: which is processed next, what is dropped and counted; answers come in order.

A front end offers what its client sends and passes on what `Session.answer` gives. Knows neither
HTTP nor gRPC, nor what an answer holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog

from sdpose_core.types import Floats, Image
from service.errors import (
    ErrorCode,
    ServiceError,
    as_service_error,
    invalid_argument,
    without_frames,
)
from service.scheduling.budget import ByteBudget
from service.scheduling.shares import FairBound
from service.telemetry.calls import CLIENT_GONE, OK
from service.telemetry.metrics import Metrics

R = TypeVar("R")
MAX_SEQUENCE = 2**64 - 1
_OF_THE_STREAM = (ErrorCode.UNAVAILABLE, ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FrameAnswer(Generic[R]):
    """The outcome of one frame: its result, or its own error.

    `dropped` counts the frames skipped since the answer before.
    """

    sequence: int
    timestamp: float | None
    dropped: int
    outcome: R | ServiceError


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """One frame as it came: `received_s` is a `time.monotonic()` moment, `boxes` are the client's.

    `refusal` is why it is answered with an error and not processed.
    """

    image: bytes | Image
    sequence: int
    timestamp: float | None = None
    boxes: Floats | None = None
    received_s: float = field(default_factory=time.monotonic)
    refusal: ServiceError | None = None


class Session(Generic[R]):
    """One stream. Holds one waiting frame at most, however fast its client sends.

    Frames share `budget` with all that is held of requests; one that does not fit is answered with
    overloaded. Where none comes for `idle_s` seconds with nothing to process, the stream ends.
    """

    def __init__(
        self,
        estimate: Callable[[ReceivedFrame], Awaitable[R]],
        metrics: Metrics,
        budget: ByteBudget,
        idle_s: float,
        share: Hashable = None,
    ) -> None:
        self.answered = 0
        self.dropped = 0
        self._estimate = estimate
        self._idle_s = idle_s
        self._count = metrics.stream_frames
        self._budget = budget
        self._share = share
        self._held = 0
        self._waiting: ReceivedFrame | None = None
        self._dropped = 0
        self._last: int | None = None
        self._finished = False
        self._error: ServiceError | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Returns when no frame waits, so that the next one drops none."""
        await self._room.wait()

    def offer(
        self,
        image: bytes | Image,
        sequence: int | None = None,
        timestamp: float | None = None,
        boxes: Floats | None = None,
    ) -> None:
        """Takes the newest frame; one that still waits is dropped.

        `sequence` must rise and may begin at 0; unset: the one before plus one, first 1. Raises
        `ServiceError` invalid_argument.
        """
        if sequence is None:
            sequence = 1 if self._last is None else self._last + 1
        if sequence > MAX_SEQUENCE:
            raise invalid_argument("sequence", f"no number comes after {MAX_SEQUENCE}")
        if self._last is not None and sequence <= self._last:
            raise invalid_argument("sequence", f"{sequence} does not come after {self._last}")
        self._last = sequence
        if self._waiting is not None:
            self._dropped += 1
            self.dropped += 1
            self._count.labels("dropped").inc()
            self._release(self._waiting)
        try:
            self._budget.take(_size(image), held=self._held, share=self._share)
        except ServiceError as error:
            self._waiting = ReceivedFrame(b"", sequence, timestamp, refusal=error)
        else:
            self._held += _size(image)
            self._waiting = ReceivedFrame(image, sequence, timestamp, boxes)
        self._room.clear()
        self._news.set()

    def finish(self) -> None:
        """No frame comes any more; the one that waits is still answered."""
        self._finished = True
        self._news.set()

    def close(self, error: ServiceError) -> None:
        """Ends the stream with an error after the frame in work; the first error counts."""
        self._error = self._error or error
        self._news.set()

    @asynccontextmanager
    async def fed_by(self, reading: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Runs a front end's reader beside; the stream ends as the reader does."""
        reader = asyncio.create_task(self._feed(reading))
        try:
            yield
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def answer(self) -> FrameAnswer[R] | None:
        """Looks at the newest frame, as soon as there is one; None after the last.

        Raises the `ServiceError` that ends the stream: one given to `close`, unavailable, or
        deadline_exceeded where no frame comes.
        """
        frame = await self._take()
        if frame is None:
            return None
        dropped, self._dropped = self._dropped, 0
        outcome = await self._looked_at(frame)
        self.answered += 1
        return FrameAnswer(frame.sequence, frame.timestamp, dropped, outcome)

    def give_up(self) -> None:
        """Counts the frame that will not be processed."""
        if self._waiting is not None:
            self._count.labels(self._error.code.value if self._error else CLIENT_GONE).inc()
            self._release(self._waiting)
            self._waiting = None

    def _release(self, frame: ReceivedFrame) -> None:
        self._held -= _size(frame.image)
        self._budget.give_back(_size(frame.image), share=self._share)

    async def _feed(self, reading: Coroutine[Any, Any, None]) -> None:
        try:
            await reading
        except ServiceError as error:
            self.close(error)
        except Exception as error:  # noqa: BLE001 - logged here, raised to the client by `answer`
            _log.exception("stream cannot be read")
            self.close(as_service_error(error))
        else:
            self.finish()

    async def _take(self) -> ReceivedFrame | None:
        while self._error is None:
            if self._waiting is not None:
                frame, self._waiting = self._waiting, None
                self._room.set()
                return frame
            if self._finished:
                return None
            self._news.clear()
            try:
                async with asyncio.timeout(self._idle_s):
                    await self._news.wait()
            except TimeoutError:
                if not self._news.is_set():  # else it came in the very moment
                    self.close(
                        ServiceError(
                            ErrorCode.DEADLINE_EXCEEDED, f"no frame came for {self._idle_s:g} s"
                        )
                    )
        raise self._error

    async def _looked_at(self, frame: ReceivedFrame) -> R | ServiceError:
        outcome = CLIENT_GONE  # unless the estimate ends
        try:
            if frame.refusal is not None:
                raise frame.refusal
            result = await self._estimate(frame)
            outcome = OK
            return result
        except ServiceError as error:
            outcome = error.code.value
            if error.code in _OF_THE_STREAM:
                raise  # nothing of this one frame: the stream itself cannot go on
            return without_frames(error)
        except Exception as error:  # noqa: BLE001 - logged here, sent without detail
            outcome = ErrorCode.INTERNAL.value
            _log.exception("frame failed", sequence=frame.sequence)
            return as_service_error(error)
        finally:
            self._count.labels(outcome).inc()
            self._release(frame)


def _size(image: bytes | Image) -> int:
    return len(image) if isinstance(image, bytes) else image.nbytes


class Streams:
    """The open streams of all front ends, bounded together; each ends when idle for `idle_s`."""

    def __init__(self, most: int, metrics: Metrics, budget: ByteBudget, idle_s: float) -> None:
        self._room = FairBound(most)
        self._idle_s = idle_s
        self._budget = budget
        self._metrics = metrics
        self._open: set[Session[Any]] = set()

    @contextmanager
    def open(
        self, estimate: Callable[[ReceivedFrame], Awaitable[R]], share: Hashable = None
    ) -> Iterator[Session[R]]:
        """One more stream of a share; `estimate` processes one frame.

        Raises `ServiceError` overloaded at the maximum, or at what one share may have of it.
        """
        if not self._room.fits(share):
            self._metrics.shed("streams", "too_many_streams")
            raise ServiceError(
                ErrorCode.OVERLOADED,
                f"{len(self._open)} streams are open already",
                retry_after_s=5.0,
            )
        session = Session(estimate, self._metrics, self._budget, self._idle_s, share)
        self._open.add(session)
        self._metrics.streams_active.inc()
        try:
            with self._room.taken(share):
                yield session
        finally:
            self._open.remove(session)
            self._metrics.streams_active.dec()
            session.give_up()

    def close(self, reason: str) -> None:
        """Ends every stream with unavailable after the frame in work."""
        for session in self._open:
            session.close(ServiceError(ErrorCode.UNAVAILABLE, reason, retry_after_s=2.0))
