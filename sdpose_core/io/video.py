"""Videos: reading frames in order, writing them."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from sdpose_core.files.whole_file import PartialFile
from sdpose_core.io.problems import BrokenVideo, MediaError
from sdpose_core.io.sound import SoundTrack
from sdpose_core.types import Image

if TYPE_CHECKING:
    from sdpose_core.io.web import WebFile

CONTAINERS: Final = ",".join(
    (
        *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "live_flv"),
        *("ogg", "mxf", "gxf", "nut", "ivf", "obu", "h264", "hevc", "vvc", "m4v", "dv", "rm"),
        *("wtv", "dhav", "yuv4mpegpipe", "mjpeg", "mpjpeg", "jpeg_pipe", "png_pipe", "webp_pipe"),
        *("gif", "apng"),
    )
)
"""Formats that FFmpeg may take: files that hold what they show. Lists, scripts and
descriptions (m3u8, concat, DASH, SDP) would lead it to other files and hosts."""
NOT_FOLLOWED: Final = "a playlist or script, which is not followed, or no video that is read"

_TICK = Fraction(1, 90_000)  # seconds, as in transport streams; of frames with their own times
_MISORDERED = 3
"""Frames by which a time may fall back in a damaged file; by more, the clock began again."""


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a video.

    Attributes:
        number: From 0.
        time_s: Seconds from the first frame, never falling. If the file's own clock begins
            again, as in recordings joined end to end, it goes on.
        image: Its pixels.
        duration_s: How long it is shown by the file; 0 if unknown.
    """

    number: int
    time_s: float
    image: Image
    duration_s: float = 0.0


class VideoReader:
    """Frames of a video file in order, upright.

    Damaged parts are left out, and what comes after them is read. Of several tracks `video_track`
    is read.

    Args:
        file: Its path, or the file itself.

    Attributes:
        rate: frames per second, from the file's header.
        frames: number of frames in the file's header, or None.
        sound: the audio stream to hear, of PyAV; None without one.
        on_sound: gets, while frames are read, each packet of it with its time, seconds from the
            first frame.

    Raises:
        MediaError: not a video, or no image in it.
        BrokenVideo: after all frames that can be read, if there were others.
    """

    def __init__(self, file: Path | BinaryIO | WebFile) -> None:
        import av

        # The last is of what the file is read from.
        self._error = (av.FFmpegError, OSError, MediaError)
        try:
            # With its protocol, since a file's name may look like an address or a list to FFmpeg.
            self._container: Any = av.open(
                f"file:{file}" if isinstance(file, Path) else file,
                options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
            )
        except self._error as error:
            invalid = getattr(error, "errno", None) == errno.EINVAL
            reason = NOT_FOLLOWED if invalid else _reason(error)
            raise MediaError(f"the video cannot be opened: {reason}") from error
        try:
            self._stream = video_track(self._container)
        except MediaError:
            self.close()
            raise
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate or 25
        self.rate = Fraction(rate)
        self.frames: int | None = self._stream.frames or self._estimate()
        self.sound: Any = self._container.streams.best("audio")
        self.on_sound: Callable[[Any, float], object] | None = None
        self._early: list[Any] = []
        self._offset_s: float | None = None

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
        step_s = 1 / float(self.rate)
        shown_s = 0.0
        for number, frame in enumerate(self._decoded()):
            clock_s = float(frame.time if frame.time is not None else number * step_s)
            if self._offset_s is None or number == 0:
                self._offset_s = -clock_s
            elif clock_s + self._offset_s < shown_s - _MISORDERED * step_s:
                self._offset_s = shown_s + step_s - clock_s
            shown_s = max(shown_s, clock_s + self._offset_s)
            duration_s = float((frame.duration or 0) * (frame.time_base or 0))
            yield VideoFrame(number, shown_s, upright(frame), duration_s)
            self._hear()

    def _decoded(self) -> Iterator[Any]:
        damaged = 0
        reason = ""
        heard = self.sound if self.on_sound is not None else None
        packets = self._container.demux([self._stream, *([heard] if heard else [])])
        while True:
            try:
                packet = next(packets, None)
            except self._error as error:
                self._hear()
                raise BrokenVideo(f"the video breaks off: {_reason(error)}") from error
            if packet is None:
                self._hear()
                break
            if heard is not None and packet.stream.index == heard.index:
                if packet.pts is not None:
                    self._early.append(packet)
                continue
            try:
                frames = packet.decode()
            except self._error as error:
                damaged += 1
                reason = _reason(error)
            else:
                yield from frames
        if damaged:
            parts = f"{damaged} part{'s' * (damaged > 1)}"
            raise BrokenVideo(f"{parts} of the video left out as damaged: {reason}")

    def _hear(self) -> None:
        """Hand on the sound that was read, once the time of the first frame is known."""
        for packet in self._early:
            if self.on_sound is not None and self._offset_s is not None:
                self.on_sound(packet, float(packet.pts * packet.time_base) + self._offset_s)
        self._early.clear()


class VideoWriter:
    """An mp4 file (H.264) that appears under its name only when it is complete.

    Use it as a context manager: leaving it normally finishes the file, an exception removes it.

    Args:
        path: of the file; folders on the way to it are made.
        rate: frames per second.
        keep: if it cannot be finished, as on a full disk, the file holds all but the last few
            seconds of what was written, and is playable.
        sound: audio stream that ``add_sound`` gets the packets of; None for a file without sound.

    Raises:
        MediaError: while writing, when a frame does not encode or cannot be stored.
    """

    def __init__(
        self, path: Path, rate: Fraction, *, keep: bool = False, sound: Any = None
    ) -> None:
        self._path = path
        self._partial = PartialFile(path)
        self._rate = rate
        self._keep = keep
        self._sound = sound
        self._sounds: SoundTrack | None = None
        self._mute: Exception | None = None
        self._unheard: list[tuple[Any, float]] = []
        self._container: Any = None
        self._stream: Any = None
        self._last = -1
        self._durations: dict[int, int] = {}

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: Image, time_s: float | None = None, duration_s: float = 0.0) -> None:
        """Add a frame; an odd last row or column is dropped, as the format needs even sides.

        ``time_s`` is when it is shown, from the start and rising; None follows ``rate``. All frames
        of a file have it or none has. ``duration_s`` counts for the last frame; 0 is as long as the
        one before.
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
                # Rising, whatever the file has: equal times are an error to the encoder.
                self._last = max(round(time_s / _TICK), self._last + 1)
                frame.pts, frame.time_base = self._last, _TICK
                self._durations[self._last] = round(duration_s / _TICK)
            self._mux(frame)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._failure(error) from error

    def add_sound(self, packet: Any, time_s: float) -> None:
        """Add a packet of the sound; ``time_s`` as of ``write``.

        Raises:
            MediaError: it cannot be kept; no more of it is taken, and the frames go on.
        """
        import av

        if self._sound is None:
            return
        self._unheard.append((packet, time_s))
        if self._container is None:  # its tracks come with the first frame
            return
        try:
            if self._mute is not None:
                raise self._mute
            if self._sounds is not None:
                for each in self._unheard:
                    self._sounds.add(*each)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._sound = self._sounds = None
            raise MediaError(
                f"its drawing {self._path} has not all of the sound: {_reason(error)}"
            ) from error
        finally:
            self._unheard.clear()

    def _failure(self, error: Exception) -> MediaError:
        return MediaError(f"its drawing {self._path} cannot be written: {_reason(error)}")

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            if ticks := self._durations.pop(packet.pts, 0):
                packet.duration = ticks
            self._container.mux(packet)

    def _open(self, width: int, height: int, tick: Fraction | None) -> None:
        import av

        self._path.parent.mkdir(parents=True, exist_ok=True)
        # In fragments, which play without the index that closing the file puts in their place.
        fragments = {"movflags": "hybrid_fragmented", "frag_duration": "1000000"}
        path = str(self._partial.path)
        self._container = av.open(path, "w", format="mp4", options=fragments)
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        if tick is not None:
            self._stream.codec_context.time_base = tick
            # Frames that are stored out of order would leave the last one's end unsaid.
            self._stream.codec_context.max_b_frames = 0
        self._stream.options = {"crf": "20", "preset": "veryfast"}
        if self._sound is not None:
            try:
                self._sounds = SoundTrack(self._container, self._sound)
            except (av.FFmpegError, OSError, ValueError) as error:
                self._mute = error  # raised with the first packet of it

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._container is None:
            return
        import av

        whole = False
        try:
            try:
                if kind is None:
                    self._mux(None)
                    if self._sounds is not None:
                        self._sounds.finish()
            finally:
                self._container.close()
            if kind is None:
                self._partial.finish()
                whole = True
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        finally:
            if self._keep and not whole:
                self._finish_fragments()
            self._partial.discard()

    def _finish_fragments(self) -> None:
        """Keeps the part of the file that is whole; nothing if that fails or is empty."""
        with contextlib.suppress(OSError), self._partial.path.open("r+b") as file:
            if end := _end_of_fragments(file):
                file.truncate(end)
                self._partial.finish()


def _end_of_fragments(file: BinaryIO) -> int:
    """Where the last whole fragment of an mp4 file ends; 0 without one."""
    end, at, size = 0, 0, os.fstat(file.fileno()).st_size
    while at + 16 <= size:
        file.seek(at)
        length, kind, long = struct.unpack(">I4sQ", file.read(16))
        at += length if length > 1 else long
        if at > size or not length:
            break
        if kind == b"mdat":
            end = at
    return end


def video_track(container: Any) -> Any:
    """The track to read of an open container of PyAV: the default one, or else the first.

    Covers and thumbnails, which players keep in separate tracks, are none.

    Raises:
        MediaError: there is none.
    """
    from av.stream import Disposition

    stills = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    tracks = [track for track in container.streams.video if not track.disposition & stills]
    if not tracks:
        only = "but a cover or a thumbnail " if container.streams.video else ""
        raise MediaError(f"there is no video {only}in it")
    chosen = (track for track in tracks if track.disposition & Disposition.default)
    return next(chosen, tracks[0])


def upright(frame: Any) -> Image:
    """The pixels of a decoded frame of PyAV."""
    pixels = frame.to_ndarray(format="rgb24")
    # What a phone noted about how it was held, in degrees against the clock.
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else np.asarray(pixels, np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, MediaError):
        return str(error)
    return getattr(error, "strerror", None) or type(error).__name__
