"""Frames of a stream, from whatever gives them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import suppress

from sdpose_client.requests import StreamFrame

Frames = AsyncIterable[bytes | StreamFrame] | Iterable[bytes | StreamFrame]


async def each_of(frames: Frames) -> AsyncGenerator[StreamFrame, None]:
    """Each frame; what is no async iterable is read in a thread, as it may wait for a camera.

    Raises what `frames` raises.
    """
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield _as_frame(frame)
        return
    reader = _Reader(frames)
    # A daemon, since a camera that never answers must not keep the process alive.
    threading.Thread(target=reader.run, name="frames", daemon=True).start()
    try:
        while not isinstance(one := await reader.next(), _End):
            yield _as_frame(one)
        if one.error is not None:
            raise one.error
    finally:
        reader.stop()


class _End:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


class _Reader:
    """Hands each frame to the event loop, and waits until the one before is taken."""

    def __init__(self, frames: Iterable[bytes | StreamFrame]) -> None:
        self._frames = frames
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | StreamFrame | _End] = asyncio.Queue()
        self._room = threading.Semaphore(1)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Reads until the frames or the reading ends."""
        end = _End()
        try:
            for frame in self._frames:
                self._hand_over(frame)
                if self._stopping.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - raised where the frames are read
            end = _End(error)
        self._hand_over(end)

    async def next(self) -> bytes | StreamFrame | _End:
        """The next frame, or how they ended."""
        one = await self._queue.get()
        self._room.release()
        return one

    def stop(self) -> None:
        """Ends the thread with its next frame."""
        self._stopping.set()
        self._room.release()  # lets go of a thread that waits for room

    def _hand_over(self, one: bytes | StreamFrame | _End) -> None:
        self._room.acquire()
        if not self._stopping.is_set():
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._queue.put_nowait, one)


def _as_frame(frame: bytes | StreamFrame) -> StreamFrame:
    return StreamFrame(frame) if isinstance(frame, bytes) else frame
