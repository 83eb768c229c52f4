"""Streams that go on if their connection breaks."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from sdpose_client.answers import StreamAnswer
from sdpose_client.errors import ErrorCode, ServiceError
from sdpose_client.frames import Frames, each_of
from sdpose_client.requests import Ask, StreamAsk, StreamFrame

_WORTH_IT: Final = (ErrorCode.UNAVAILABLE, ErrorCode.OVERLOADED, ErrorCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a stream goes on after its connection broke.

    It keeps the resume token, so people keep their ids if the service still knows them: the same
    process, within its time of grace. If it does not, they get new ones, and `tell` is called. With
    `drop="none"` every frame is answered once: at most `buffer` frames are sent and unanswered, and
    those are sent again. Otherwise the newest frame waits for the new connection, and older ones
    count as dropped.

    Attributes:
        first_s: pause before the first try; it doubles.
        longest_s: longest pause.
        attempts: failures in a row after which the error is raised; None never does.
        buffer: maximum number of unanswered frames if none may be dropped.
        tell: called with one sentence for each connection that broke, and for lost identities.
    """

    first_s: float = 0.5
    longest_s: float = 10.0
    attempts: int | None = None
    buffer: int = 8
    tell: Callable[[str], None] = lambda _: None

    def pause_s(self, failures: int, error: ServiceError) -> float:
        """Seconds to wait; raises `error` if it is not worth another try."""
        if error.code not in _WORTH_IT or failures == self.attempts:
            raise error
        doubled = self.first_s * 2.0 ** min(failures - 1, 16)
        return min(max(doubled, error.retry_after_s or 0.0), self.longest_s)


Connect = Callable[[Frames, Ask, StreamAsk], AsyncGenerator[StreamAnswer, None]]
"""A client's `stream`."""


async def follow(
    connect: Connect,
    frames: Frames,
    ask: Ask | None = None,
    stream: StreamAsk | None = None,
    reconnect: Reconnect | None = None,
) -> AsyncGenerator[StreamAnswer, None]:
    """The answers to `frames` over as many streams as it takes.

    Raises `ServiceError` if another try makes no sense, or what `frames` raises.
    """
    ask, stream, reconnect = ask or Ask(), stream or StreamAsk(), reconnect or Reconnect()
    outbox = _Outbox(reconnect.buffer if stream.drop == "none" else None)
    if stream.affinity is None:
        stream = replace(stream, affinity=secrets.token_urlsafe(12))
    filling = asyncio.create_task(outbox.fill(frames))
    failures = 0
    try:
        while True:
            try:
                async with aclosing(connect(outbox.frames(), ask, stream)) as answers:
                    async for answer in answers:
                        failures = 0
                        if answer.resume_token not in (None, stream.resume_token):
                            if stream.resume_token is not None:
                                reconnect.tell("people have new ids: the stream was not known")
                            stream = replace(stream, resume_token=answer.resume_token)
                        yield replace(answer, dropped=outbox.answered(answer.sequence))
                if outbox.over:
                    return
                error = ServiceError(ErrorCode.UNAVAILABLE, "the stream ended before its frames")
            except ServiceError as broken:
                error = broken
            outbox.again()
            if outbox.failure is not None and outbox.over:
                raise outbox.failure
            failures += 1
            pause_s = reconnect.pause_s(failures, error)
            reconnect.tell(f"{error.message}; next try in {pause_s:g} s")
            await asyncio.sleep(pause_s)
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


class _Outbox:
    """Frames between their source and the stream of the moment.

    With `keep` none is lost: the source waits while so many are unanswered. Without, one frame
    waits, and a newer one takes its place.
    """

    def __init__(self, keep: int | None) -> None:
        self._keep = keep
        self._waiting: deque[StreamFrame] = deque()
        self._sent: dict[int, StreamFrame | None] = {}
        self._places: dict[int, int] = {}
        self._given = 0
        self._answered_place = 0
        self._last: int | None = None
        self._ended = False
        self.failure: Exception | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether all frames have come and gone."""
        return self._ended and not self._waiting and not (self._keep and self._sent)

    async def fill(self, frames: Frames) -> None:
        """Takes from the source until it ends."""
        try:
            async with aclosing(each_of(frames)) as given:
                async for frame in given:
                    await self._put(frame)
        except Exception as error:  # noqa: BLE001 - raised to the one who reads the answers
            self.failure = error
        self._ended = True
        self._news.set()

    async def frames(self) -> AsyncIterator[StreamFrame]:
        """For one stream: what waits, then what comes. Raises what the source raised."""
        while True:
            while self._waiting:
                frame = self._waiting.popleft()
                assert frame.sequence is not None
                self._sent[frame.sequence] = frame if self._keep else None
                yield frame
            if self.failure is not None:
                raise self.failure
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()

    def answered(self, sequence: int) -> int:
        """Notes an answer; the number of frames without one since the answer before."""
        for number in [one for one in self._sent if one <= sequence]:
            del self._sent[number]
        place = self._places.get(sequence, self._answered_place + 1)
        self._places = {one: where for one, where in self._places.items() if one > sequence}
        dropped, self._answered_place = place - self._answered_place - 1, place
        self._room.set()
        return dropped

    def again(self) -> None:
        """For a new stream: what was sent and not answered waits again, if none may be lost."""
        if self._keep:
            kept = [frame for frame in self._sent.values() if frame is not None]
            self._waiting.extendleft(reversed(kept))
        self._sent.clear()
        self._news.set()

    async def _put(self, frame: StreamFrame) -> None:
        while self._keep and len(self._waiting) + len(self._sent) >= self._keep:
            self._room.clear()
            await self._room.wait()
        number = frame.sequence
        if number is None:
            number = 1 if self._last is None else self._last + 1
        self._last = number
        self._given += 1
        self._places[number] = self._given
        if not self._keep and self._waiting:
            self._places.pop(self._waiting.popleft().sequence or 0, None)
        self._waiting.append(replace(frame, sequence=number))
        self._news.set()
