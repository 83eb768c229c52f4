"""Live sources: latest frame only, reconnects automatically."""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sdpose_core.io.addresses import shown as shown
from sdpose_core.io.addresses import without_secrets
from sdpose_core.io.problems import MediaError
from sdpose_core.io.video import CONTAINERS, NOT_FOLLOWED, VideoReader, upright, video_track
from sdpose_core.types import Image

SCHEMES: Final = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp", "srt")
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
_DEVICE = re.compile(r"^(\d+|/dev/video\d+)$")


def is_live(address: str) -> bool:
    """Whether this names a camera device or an address, and not a file."""
    return bool(_DEVICE.match(address)) or address.split("://")[0].lower() in SCHEMES


def is_recording(address: str) -> bool:
    """Whether an address of the web stands for a file: of a known size, or of a known duration.

    False for a camera, a playlist, and if nothing answers.
    """
    if not address.lower().startswith(("http://", "https://")):
        return False
    from sdpose_core.io.web import WebFile

    try:
        with WebFile(address, patience_s=10.0, tries=0) as file:
            playlist = file.read(64).lstrip().startswith((b"#EXTM3U", b"<"))
            if playlist or file.kind.startswith("multipart/"):
                return False
            if file.size is not None:
                return True
        with WebFile(address, patience_s=10.0, tries=0) as file, VideoReader(file) as reader:
            return reader.frames is not None
    except MediaError:
        return False


@dataclass(frozen=True, slots=True)
class TimedImage:
    """One frame of a source.

    Attributes:
        number: from 0.
        time_s: when it was taken: seconds since the first frame.
        ready_s: when it was available, a ``time.monotonic()`` moment.
        image: its pixels.
        dropped: frames of the source that were left out since the one before.
    """

    number: int
    time_s: float
    ready_s: float
    image: Image
    dropped: int = 0


class LiveSource:
    """A camera or an address, read in a separate thread; a context manager.

    A line that breaks is opened again, after a pause that doubles from 0.5 to 10 seconds.

    Args:
        address: ``0`` or ``/dev/video0``, or an address such as ``rtsp://host/path``.
        tell: called with one sentence about a line that broke and one that is back.
        timeout_s: longest wait for opening and for each frame.
        attempts: failures in a row after which it ends; None never ends.
        options: FFmpeg's, for the protocol.
        max_pixels: width times height of a frame; a larger one counts as a failure.
        route: gives the address to open instead of this one while it is open, in the reading
            thread; it may raise ``MediaError``.

    Attributes:
        problem: why no frames come at present; None while they do, and before the first try ends.
        reconnects: how often a line that broke came back.
    """

    def __init__(
        self,
        address: str,
        tell: Callable[[str], None],
        *,
        timeout_s: float = 10.0,
        attempts: int | None = None,
        options: Mapping[str, str] | None = None,
        max_pixels: int | None = None,
        route: Callable[[str], AbstractContextManager[str]] = nullcontext,
    ) -> None:
        self._address = f"/dev/video{address}" if address.isdecimal() else address
        self._tell = tell
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._options = {**(options or {}), "format_whitelist": f"{CONTAINERS},rtsp,v4l2"}
        self._max_pixels = max_pixels
        self._route = route
        self._news = threading.Condition()
        self._newest: tuple[Any, float] | None = None
        self._missed = 0
        self._stopping = threading.Event()
        self._failure: MediaError | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run, name="live source", daemon=True)
        self._newest_since_failure = False
        self.reconnects = 0
        self.problem: str | None = None

    def __enter__(self) -> LiveSource:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(timeout=self._timeout_s + 1)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the reading soon, and with it `frames`; does not wait for it."""
        self._stopping.set()

    @property
    def reading(self) -> bool:
        """Whether its thread still runs: FFmpeg may wait for a line until the timeout."""
        return self._thread.is_alive()

    def frames(self, stopping: Callable[[], bool] = lambda: False) -> Iterator[TimedImage]:
        """The newest frame each time one is requested, until the source ends or ``stopping``.

        Raises:
            MediaError: it ended; the sentence is the last failure.
        """
        number, began_s = 0, 0.0
        while not (stopping() or self._stopping.is_set()):
            with self._news:
                self._news.wait_for(lambda: self._newest is not None or self._over, timeout=0.2)
                taken, self._newest = self._newest, None
                over = self._over
                if taken is not None:
                    dropped, self._missed = self._missed, 0
            if taken is None:
                if over and self._failure is not None:
                    raise self._failure
                if over:
                    return
                continue
            decoded, when = taken
            began_s = when if number == 0 else began_s
            yield TimedImage(number, when - began_s, when, upright(decoded), dropped)
            number += 1

    def _run(self) -> None:
        failures, pause_s = 0, FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                if self._read(came_back=failures > 0):
                    break
                failure = MediaError("the source ended")
                failures, pause_s = 0, FIRST_PAUSE_S
            except MediaError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - a thread that dies would go unnoticed
                reason = without_secrets(f"{type(error).__name__}: {error}", self._address)
                failure = MediaError(f"it cannot be read: {reason}")
            if self._newest_since_failure:
                failures, pause_s = 0, FIRST_PAUSE_S
            failures += 1
            self.problem = str(failure)
            if self._attempts is not None and failures >= self._attempts:
                self._failure = failure
                break
            self._tell(f"{shown(self._address)}: {failure}; next try in {pause_s:g} s")
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        with self._news:
            self._over = True
            self._news.notify_all()

    def _read(self, *, came_back: bool) -> bool:
        """Reads until the line breaks; true if a recording came to its end.

        Raises ``MediaError``.
        """
        import av

        self._newest_since_failure = False
        options, kind = self._options, None
        if self._address.startswith("/dev/video"):
            kind = "v4l2"
            if not Path(self._address).exists():
                raise MediaError("there is no such device")
        elif self._address.lower().startswith("rtsp"):
            # Images over UDP lose packets and smear.
            options = {"rtsp_transport": "tcp", **options}
        try:
            with (
                self._route(self._address) as address,
                av.open(
                    address, format=kind, options=options, timeout=self._timeout_s
                ) as container,
            ):
                track = video_track(container)
                if came_back:
                    self.reconnects += 1
                    self._tell(f"{shown(self._address)}: back")
                for frame in container.decode(track):
                    self._put(frame)
                    if self._stopping.is_set():
                        return True
                return container.duration is not None
        except (av.FFmpegError, OSError) as error:
            raise MediaError(_sentence(error, self._timeout_s)) from error

    def _put(self, frame: Any) -> None:
        if self._max_pixels is not None and frame.width * frame.height > self._max_pixels:
            raise MediaError(
                f"frames of {frame.width}x{frame.height} are too large, at most "
                f"{self._max_pixels / 1e6:g} megapixels are taken"
            )
        self.problem = None
        with self._news:
            self._missed += self._newest is not None
            self._newest = (frame, time.monotonic())
            self._newest_since_failure = True
            self._news.notify()


def live_frames(
    frames: Iterable[TimedImage], fps: float | None, every: int
) -> Iterator[TimedImage]:
    """Frames of a live source: one of so many, and at most ``fps`` per second.

    What is left out so was not dropped; what the source dropped meanwhile still counts.
    """
    due_s, dropped = 0.0, 0
    for frame in frames:
        dropped += frame.dropped
        if frame.number % every or frame.ready_s < due_s:
            continue
        # A camera's frames come a little early or late; a tenth keeps the full rate full.
        due_s = frame.ready_s + (0.9 / fps if fps else 0.0)
        yield replace(frame, dropped=dropped)
        dropped = 0


def _sentence(error: Exception, timeout_s: float) -> str:
    import av

    if isinstance(error, av.ExitError):  # what PyAV raises when the time is over
        return f"no answer for {timeout_s:g} s"
    if getattr(error, "errno", None) == errno.EINVAL:
        return f"{NOT_FOLLOWED}, or no address at all"
    reason = getattr(error, "strerror", None) or type(error).__name__
    return {
        "Device or resource busy": "the device is in use by another program",
        "Permission denied": "no permission to open it",
        "Input/output error": "the connection broke off",
    }.get(reason, f"it cannot be read: {reason}")
