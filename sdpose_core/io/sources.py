"""Images and videos on disk: finding them, reading images."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdpose_core.image_files import ImageFileError, ImageLimits, decode_image
from sdpose_core.types import Image

IMAGE_SUFFIXES: Final = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
)
VIDEO_SUFFIXES: Final = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv")
)
STANDARD_INPUT: Final = "-"

# One's own files, so wider than what a server accepts from strangers.
_LIMITS: Final = ImageLimits(max_bytes=2**29, max_pixels=150_000_000)


class MediaError(Exception):
    """An image or a video that cannot be used; the message is one sentence without the name."""


class BrokenVideo(MediaError):
    """A video that is damaged from some frame on."""


@dataclass(frozen=True, slots=True)
class Source:
    """One image or video to work on.

    Attributes:
        path: where it is, None for standard input.
        name: what to call it in results.
        place: relative path for what is made from it, such as its drawing.
    """

    path: Path | None
    name: str
    place: Path

    @property
    def is_video(self) -> bool:
        return self.path is not None and self.path.suffix.lower() in VIDEO_SUFFIXES


def find_sources(inputs: Sequence[str]) -> tuple[list[Source], list[str]]:
    """What files, folders, globs and ``-`` stand for, in the order given, each file once.

    A folder means the images and videos in it and below it, sorted by path. A glob may hold
    ``**``. A name that exists is never read as a glob.

    Returns:
        The sources, and one sentence for each input that stands for nothing.
    """
    sources: dict[str, Source] = {}
    problems = []
    for given in inputs:
        if given == STANDARD_INPUT:
            found = [Source(None, STANDARD_INPUT, Path("stdin.jpg"))]
        elif Path(given).is_dir():
            found = _in_folder(Path(given))
            if not found:
                problems.append(f"{given}: no images or videos in this folder")
        elif os.path.lexists(given):
            found = [_file(Path(given))]
        elif glob.has_magic(given):
            matches = (Path(match) for match in sorted(glob.glob(given, recursive=True)))
            found = [_file(match) for match in matches if _known(match)]
            if not found:
                problems.append(f"{given}: nothing matches")
        else:
            found = []
            problems.append(f"{given}: no such file or folder")
        for source in found:
            sources.setdefault(source.name, source)
    return list(sources.values()), problems


def _file(path: Path) -> Source:
    return Source(path, str(path), Path(path.name))


def _in_folder(folder: Path) -> list[Source]:
    paths = sorted(path for path in folder.rglob("*") if _known(path))
    return [Source(path, str(path), path.relative_to(folder)) for path in paths]


def _known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and path.is_file()


def read_picture(source: Source) -> Image:
    """The image as RGB uint8 ``(height, width, 3)``, upright.

    Raises:
        MediaError: it cannot be read or does not decode.
    """
    try:
        data = sys.stdin.buffer.read() if source.path is None else source.path.read_bytes()
        return decode_image(data, _LIMITS)
    except OSError as error:
        raise MediaError(error.strerror or "cannot be read") from error
    except ImageFileError as error:
        raise MediaError(str(error)) from error
