"""Slot for the next frame of a stream: holds at most one, however fast the client sends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from sdpose_core.types import Floats, Image
from service.errors import ErrorCode, ServiceError
from service.scheduling.budget import ByteBudget


@dataclass(slots=True)
class Frame:
    """One frame as received, at the `time.monotonic()` moment `received_s`.

    `timestamp` (seconds) and `boxes` (people, 4) are the client's. `rejection` is why it is
    answered with an error and not processed; then its image is empty.
    """

    image: bytes | Image
    sequence: int
    timestamp: float | None = None
    boxes: Floats | None = None
    received_s: float = field(default_factory=time.monotonic)
    rejection: ServiceError | None = None

    @property
    def size(self) -> int:
        """Bytes that the image takes in memory."""
        return len(self.image) if isinstance(self.image, bytes) else self.image.nbytes


class FrameSlot:
    """Passes frames from one sender to one consumer. Belongs to one event loop.

    A newer frame replaces the one that waits; a sender that may lose none awaits `empty` first.
    Frames take their memory from `budget` until `release`, on the account of `share`. A slot that
    is empty for `idle_s` seconds while its consumer waits is closed.
    """

    def __init__(self, budget: ByteBudget, idle_s: float, share: Hashable = None) -> None:
        self._budget = budget
        self._idle_s = idle_s
        self._share = share
        self._held = 0
        self._waiting: Frame | None = None
        self._finished = False
        self.error: ServiceError | None = None
        self._changed = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    async def empty(self) -> None:
        """Returns when no frame waits, so that the next one replaces none."""
        await self._empty.wait()

    def offer(self, frame: Frame) -> Frame | None:
        """Puts a frame in and returns the one that it replaces, released.

        A frame for which there is no memory loses its image and carries the rejection.
        """
        replaced = self.clear()
        try:
            self._budget.take(frame.size, held=self._held, share=self._share)
        except ServiceError as error:
            frame.image, frame.rejection = b"", error
        self._held += frame.size
        self._waiting = frame
        self._empty.clear()
        self._changed.set()
        return replaced

    async def take(self) -> Frame | None:
        """The waiting frame as soon as there is one; None after the last.

        Raises the `ServiceError` given to `close`, or deadline_exceeded if no frame comes.
        """
        while self.error is None:
            if self._waiting is not None:
                frame, self._waiting = self._waiting, None
                self._empty.set()
                return frame
            if self._finished:
                return None
            self._changed.clear()
            try:
                async with asyncio.timeout(self._idle_s):
                    await self._changed.wait()
            except TimeoutError:
                if not self._changed.is_set():  # else it came at the same moment
                    message = f"no frame came for {self._idle_s:g} s"
                    self.close(ServiceError(ErrorCode.DEADLINE_EXCEEDED, message))
        raise self.error

    def release(self, frame: Frame) -> None:
        """Gives the memory of a frame back that was taken and is processed."""
        self._held -= frame.size
        self._budget.give_back(frame.size, share=self._share)

    def clear(self) -> Frame | None:
        """Removes the waiting frame, if any, and returns it, released."""
        frame, self._waiting = self._waiting, None
        if frame is not None:
            self.release(frame)
        return frame

    def finish(self) -> None:
        """No frame comes any more; the one that waits can still be taken."""
        self._finished = True
        self._changed.set()

    def close(self, error: ServiceError) -> None:
        """No frame can be taken any more; the first error counts."""
        self.error = self.error or error
        self._changed.set()
