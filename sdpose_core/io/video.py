"""Videos: reading frames in order, writing them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from sdpose_core.io.sources import BrokenVideo, MediaError
from sdpose_core.types import Image
from sdpose_core.whole_file import PartialFile

_TICK = Fraction(1, 1000)  # seconds; of files whose frames have times of their own


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame: its number from 0, its time in seconds from the start, and its pixels."""

    number: int
    time_s: float
    image: Image


class VideoReader:
    """Frames of a video file in order, upright.

    Attributes:
        rate: frames a second, as the file says.
        frames: how many frames the file says it has, or None.

    Raises:
        MediaError: not a video, or no image in it.
        BrokenVideo: while reading, at the first damaged frame.
    """

    def __init__(self, path: Path) -> None:
        import av

        self._error = (av.FFmpegError, OSError)
        try:
            self._container: Any = av.open(str(path))
        except self._error as error:
            raise MediaError(f"the video cannot be opened: {_reason(error)}") from error
        if not self._container.streams.video:
            self.close()
            raise MediaError("there is no video stream in it")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate or 25
        self.rate = Fraction(rate)
        self.frames: int | None = self._stream.frames or self._estimate()

    def _estimate(self) -> int | None:
        duration = self._container.duration
        return round(float(duration / 1_000_000 * self.rate)) if duration else None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        try:
            for number, frame in enumerate(self._container.decode(self._stream)):
                time_s = frame.time if frame.time is not None else number / float(self.rate)
                yield VideoFrame(number, float(time_s), upright(frame))
        except self._error as error:
            raise BrokenVideo(f"the video breaks off: {_reason(error)}") from error


class VideoWriter:
    """An mp4 file (H.264) that appears under its name only when it is complete.

    Use it as a context manager: leaving it normally finishes the file, an exception removes it.

    Args:
        path: of the file; folders on the way to it are made.
        rate: frames a second.

    Raises:
        MediaError: while writing, when a frame does not encode.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._path = path
        self._partial = PartialFile(path)
        self._rate = rate
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: Image, time_s: float | None = None) -> None:
        """Add a frame; an odd last row or column is dropped, as the format needs even sides.

        ``time_s`` is when it is shown, from the start and rising; None follows ``rate``. All frames
        of a file have it or none has.
        """
        import av

        height, width = (side - side % 2 for side in image.shape[:2])
        if not height or not width:
            raise MediaError("its drawing cannot be written: a video needs 2 x 2 pixels at least")
        try:
            if self._container is None:
                self._open(width, height, _TICK if time_s is not None else None)
            pixels = np.ascontiguousarray(image[:height, :width])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if time_s is not None:
                frame.pts, frame.time_base = round(time_s / _TICK), _TICK
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"its drawing cannot be written: {_reason(error)}") from error

    def _open(self, width: int, height: int, tick: Fraction | None) -> None:
        import av

        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._partial.path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        if tick is not None:
            self._stream.codec_context.time_base = tick
        self._stream.options = {"crf": "20", "preset": "veryfast"}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._container is None:
            return
        import av

        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if kind is None:
                self._partial.finish()
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"its drawing cannot be written: {_reason(error)}") from error
        finally:
            self._partial.discard()


def upright(frame: Any) -> Image:
    """The pixels of a decoded frame of PyAV."""
    pixels = frame.to_ndarray(format="rgb24")
    # What a phone noted about how it was held, in degrees against the clock.
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else np.asarray(pixels, np.uint8)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
