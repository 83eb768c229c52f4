"""Terminal of the commands: progress, results to a file or a pipe, Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from sdpose_core.files.outputs import OutputError, only_run
from sdpose_core.files.whole_file import is_special
from sdpose_core.io.addresses import without_secrets

_LONG: Final = 3
"""From so many steps on the bar is worth its lines."""


class Progress:
    """A progress bar on standard error, shown for long work on a terminal only; a ``Watch``.

    Args:
        images: steps that are certain from the start.
        command: its name begins every line.
    """

    def __init__(self, images: int = 0, command: str = "sdpose") -> None:
        self._command = command
        self.stopping = False
        self._console = Console(stderr=True, soft_wrap=True)
        self._total = images
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("poses", total=images, visible=images >= _LONG)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, line: str) -> None:
        """A line on standard error, above the bar."""
        text = without_secrets(f"{self._command}: {line}")
        self._console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Stops at the user's request."""
        self.stopping = True

    def advance(self, steps: int) -> None:
        """So many images or frames are done."""
        self._bar.advance(self._task, steps)

    def expect(self, steps: int) -> None:
        """So many frames come on top of what was known."""
        self._total += steps
        self._bar.update(self._task, total=self._total, visible=self._total >= _LONG)


class SinkError(ValueError):
    """Results cannot be written to the requested file; the message is one sentence."""


class Sink:
    """Results to standard output, or to a file that gets its name only when complete.

    A pipe or a device, such as ``/dev/stdout``, gets the lines as they come. A context manager: a
    file belongs to one run until its end. An ``OSError`` of a write names the file.

    Attributes:
        file: takes bytes; closing it does nothing.

    Raises:
        SinkError: the file cannot be written, or another run is writing to it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._draft = None if path is None or is_special(path) else draft_of(path)
        self._file: BinaryIO = sys.stdout.buffer
        self._held = contextlib.ExitStack()
        self.file: _Bytes = _Bytes(self)
        if path is None:
            return
        if path.is_dir():
            raise SinkError(f"{path}: is a folder")
        try:
            if self._draft is not None:
                self._held.enter_context(only_run(path))
            self._file = (self._draft or path).open("wb")
        except OutputError as error:
            raise SinkError(str(error)) from error
        except OSError as error:
            self._held.close()
            raise SinkError(f"{path}: {error.strerror}") from error

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.end()
        if self._path is not None:
            with contextlib.suppress(OSError):  # reported when it was written
                self._file.close()
        if self._draft is not None and self._draft.exists() and not self._draft.stat().st_size:
            self._draft.unlink()  # of a run that came to nothing
        self._held.close()

    def put(self, text: str) -> None:
        """Write whole lines, at once."""
        self.write(text.encode())

    def write(self, data: bytes | memoryview) -> None:
        """Write at once."""
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            error.filename = error.filename or (str(self._path) if self._path else None)
            raise

    def store(self) -> None:
        """Be sure that all is on the disk; no write comes after it."""
        if self._draft is not None:
            os.fsync(self._file.fileno())  # as whole files are written
            self._file.close()

    def finish(self) -> None:
        """Everything is stored: the file takes its name."""
        if self._path is not None and self._draft is not None:
            self._draft.replace(self._path)
        self._held.close()

    def leave_unfinished(self) -> Path | None:
        """Close, and leave what was written beside the requested file; returns where."""
        if self._draft is not None:
            self._file.close()
        return self._draft

    def abandon(self) -> None:
        """After a broken pipe: keep Python from writing to it once more at exit."""
        if self._path is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Bytes(io.RawIOBase):
    """A sink as a binary file. After a failure or the sink's end, what comes is ignored.

    Libraries that write something at the end of a file do so after a failure too.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink: Sink | None = sink

    def end(self) -> None:
        """Nothing more counts."""
        self._sink = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._sink is not None:
            try:
                self._sink.write(data)
            except OSError:
                self.end()
                raise
        return len(data)


class LineFile:
    """Lines to a file under its own name, so that they can be followed while they come.

    What the name held before goes with the first line; a device or a named pipe is written to.

    Raises:
        SinkError: the file cannot be written, or another run is writing to it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = not path.exists()
        self._regular = not is_special(path)
        self._size = 0
        self._held = contextlib.ExitStack()
        try:
            self._held.enter_context(only_run(path))
            self._file = path.open("ab", buffering=0)
        except OutputError as error:
            raise SinkError(str(error)) from error
        except OSError as error:
            self._held.close()
            raise SinkError(f"{path}: {error.strerror}") from error

    def put(self, text: str) -> None:
        """Write whole lines, at once; after an ``OSError`` the file holds those before."""
        if self._regular and not self._size:
            self._file.truncate(0)
        data = text.encode()
        try:
            written = 0
            while written < len(data):  # a disk that fills up takes the beginning of a line
                written += self._file.write(data[written:]) or 0
        except OSError:
            if self._regular:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._size)
            raise
        self._size += len(data)

    def finish(self) -> None:
        """All lines are stored; raises ``OSError`` if they cannot be."""
        with self._held, self._file:
            if self._regular:
                os.fsync(self._file.fileno())  # reports a lost network drive first
            if self._new and self._regular and not self._size:
                self._path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """After a broken pipe."""
        with self._held:
            self._file.close()


def draft_of(path: Path) -> Path:
    """Where the lines for a file are until they are complete."""
    return path.with_name(path.name + ".part")


@contextlib.contextmanager
def stop_on_interrupt(
    on_stop: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C, SIGTERM or SIGHUP only makes the yielded function true.

    It also calls ``on_stop``. So the work in hand and the line being written are finished. The
    second one interrupts at once, as without this; but a closed terminal may send several SIGHUP.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    before: dict[int, Any] = {}
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        on_stop()
        if number != signal.SIGHUP:
            signal.signal(number, before[number])
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for gone in terminals:  # a word to them would be an error, and end the run
            os.dup2(nowhere, gone)
        os.close(nowhere)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as of nohup
            before[number] = signal.signal(number, handle)
    try:
        yield stop.is_set
    finally:
        for changed, handler in before.items():
            signal.signal(changed, handler)
