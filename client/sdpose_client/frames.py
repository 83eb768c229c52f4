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
        while not isinstance(one := await reader.queue.get(), _End):
            yield _as_frame(one)
        if one.error is not None:
            raise one.error
    finally:
        reader.stop()


class _End:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


class _Reader:
    """Hands each frame to the event loop, and waits until it is taken."""

    def __init__(self, frames: Iterable[bytes | StreamFrame]) -> None:
        self.queue: asyncio.Queue[bytes | StreamFrame | _End] = asyncio.Queue(1)
        self._frames = frames
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()

    def run(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            try:
                for frame in self._frames:
                    if self._stopping.is_set():
                        return
                    self._hand_over(frame)
            except Exception as error:  # noqa: BLE001 - raised where the frames are read
                self._hand_over(_End(error))
            else:
                self._hand_over(_End())

    def stop(self) -> None:
        """Ends the thread with its next frame."""
        self._stopping.set()
        if not self.queue.empty():
            self.queue.get_nowait()  # lets go of a thread that waits for room

    def _hand_over(self, one: bytes | StreamFrame | _End) -> None:
        asyncio.run_coroutine_threadsafe(self.queue.put(one), self._loop).result()


def _as_frame(frame: bytes | StreamFrame) -> StreamFrame:
    return StreamFrame(frame) if isinstance(frame, bytes) else frame
