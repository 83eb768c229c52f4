"""One result, and whatever takes results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sdpose_core.io.sources import Source
from sdpose_core.skeleton import Skeleton
from sdpose_core.types import Poses


@dataclass(frozen=True, slots=True)
class Record:
    """The people of one image, or of one frame of a video.

    Attributes:
        source: name of the file.
        width: of the image, pixels.
        height: of the image, pixels.
        poses: in pixels of the image.
        frame: number of the frame from 0; None for an image.
        time_s: seconds from the start of the video; None for an image.
        identity: of the file, the same whatever it is called.

    Raises:
        ValueError: a number of the poses is not finite, which no format here can say.
    """

    source: str
    width: int
    height: int
    poses: Poses
    frame: int | None = None
    time_s: float | None = None
    identity: str = ""

    def __post_init__(self) -> None:
        if not self.poses.finite:
            where = "" if self.frame is None else f"frame {self.frame}: "
            raise ValueError(f"{where}the models gave a number that is not finite")


class RecordWriter(Protocol):
    """Writes records as they come; every call writes whole lines only."""

    def write(self, record: Record) -> None: ...

    def skip(self, source: Source, reason: str) -> None:
        """Notes a source without results, or without all of them."""
        ...

    def finish(self) -> None:
        """Write what belongs at the end."""
        ...


class TextWriter:
    """The part of a ``RecordWriter`` that formats share which have no place for failures."""

    def skip(self, source: Source, reason: str) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Together:
    """A ``RecordWriter`` that hands everything to several."""

    writers: Sequence[RecordWriter]

    def write(self, record: Record) -> None:
        for writer in self.writers:
            writer.write(record)

    def skip(self, source: Source, reason: str) -> None:
        for writer in self.writers:
            writer.skip(source, reason)

    def finish(self) -> None:
        for writer in self.writers:
            writer.finish()


Failure: TypeAlias = tuple[Source, str]
"""A source without results, or without all of them, and why."""


@dataclass(frozen=True, slots=True)
class Results:
    """The content of a file of results.

    Attributes:
        skeleton: of all people.
        records: in the order of the file, read as they are taken; raises ``ResultsError``.
    """

    skeleton: Skeleton
    records: Iterator[Record | Failure]


class ResultsError(ValueError):
    """A file is not of results as we write them; the message is one sentence with its name."""
