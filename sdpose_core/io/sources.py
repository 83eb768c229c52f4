"""Images and videos on disk, in a store or on the web: finding them, reading images."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, TypeVar

from sdpose_core.io import remote
from sdpose_core.io.addresses import shown, without_secrets
from sdpose_core.io.problems import MediaError
from sdpose_core.types import Image
from sdpose_core.vision.image_files import (
    ImageFileError,
    ImageLimits,
    decode_image,
    is_heic,
    is_image,
)

IMAGE_SUFFIXES: Final = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".gif", ".bmp"),
        *(".tif", ".tiff", ".heic", ".heif", ".hif"),  # the last three are rejected by name
    )
)
VIDEO_SUFFIXES: Final = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv"),
        *(".3gp", ".3g2", ".flv", ".mts", ".m2ts", ".ogv", ".vob", ".mxf", ".asf"),
    )
)
"""Suffixes of images in a folder; of a file that is named itself the content counts."""
STANDARD_INPUT: Final = "-"
_Name = TypeVar("_Name", str, Path)

# One's own files, so wider than what a server accepts from strangers.
_LIMITS: Final = ImageLimits(max_bytes=2**29, max_pixels=150_000_000)


@dataclass(frozen=True, slots=True)
class Source:
    """One image or video to work on.

    Attributes:
        path: where it is on disk; None for an address and for standard input.
        name: what to call it in results; of an address what may be shown of it.
        place: relative path for what is made from it, such as its drawing.
        identity: the same for all spellings of a path or address and from every folder and machine
            that sees it so, without secrets; links to one file are separate files.
        address: where it is read from, with its secrets, so never shown; None for what is here.
    """

    path: Path | None
    name: str
    place: Path
    identity: str
    address: str | None = field(default=None, repr=False)

    @property
    def remote(self) -> bool:
        """Whether it is behind an address."""
        return self.address is not None

    @property
    def _suffix(self) -> str:
        if self.address is not None:
            return remote.suffix(self.address)
        return "" if self.path is None else self.path.suffix.lower()

    @property
    def named_video(self) -> bool:
        """Whether its name is that of a video."""
        return self._suffix in VIDEO_SUFFIXES

    @property
    def is_video(self) -> bool:
        """Whether its content is read as a video: it is no image, nor called one."""
        if self._suffix in IMAGE_SUFFIXES:
            return False
        if self.address is not None:
            return self.named_video or _content_is_video(self.address)
        if self.path is None:
            return not _is_picture(_standard_input())
        try:
            with self.path.open("rb") as file:
                return not _is_picture(file.read(64))
        except OSError:
            return self.named_video

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path | BinaryIO]:
        """Path or open file of a video; raises `MediaError` if an address does not answer."""
        if self.address is not None:
            with remote.opened(self.address) as file:
                yield file
        else:
            yield io.BytesIO(_standard_input()) if self.path is None else self.path


def find_sources(
    inputs: Sequence[str], note: Callable[[str], None] = lambda line: None
) -> tuple[list[Source], list[str]]:
    """Sources of files, folders, globs, addresses and ``-``, in the order given, each once.

    A folder, or a prefix of a store (``s3://bucket/prefix``), means the images and videos in it
    and below it, sorted by path. A glob may hold ``**``. A name that exists is never read as a
    glob. An address of the web stands for one file. A link to nothing counts by its name.

    Args:
        inputs: what was given.
        note: called with one sentence about each folder, prefix or glob with files of other
            kinds, which are not read.

    Returns:
        The sources, and one sentence for each input that stands for nothing.
    """
    sources: dict[str, Source] = {}
    problems = []
    for given in inputs:
        try:
            found = _found(given, note)
        except MediaError as problem:
            problems.append(str(problem))
        except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
            reason = getattr(error, "strerror", None) or without_secrets(str(error), given)
            problems.append(f"{shortened(printable(shown(given)))}: {reason}")
        else:
            for source in found:
                first = sources.setdefault(source.identity, source)
                if _differs(first.address, source.address):
                    problems.append(
                        f"{source.name}: differs from another input only in what is hidden; "
                        "give each its own run and output"
                    )
    return list(sources.values()), problems


def paths_of(sources: Iterable[Source]) -> list[Path]:
    """The files of those that are on disk, that of standard input among them."""
    return [source.path or Path("/dev/stdin") for source in sources if not source.remote]


def read_list(name: str) -> list[str]:
    """The lines of a list of inputs, a file or an address; empty ones and ``#`` comments are none.

    Raises:
        ValueError: it cannot be read, or is no text.
    """
    try:
        if remote.is_remote(name):
            data = remote.read_bytes(name, _LIMITS.max_bytes)
        else:
            data = _standard_input() if name == STANDARD_INPUT else Path(name).read_bytes()
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except (MediaError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{shown(name)}: {reason}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(name)}: not a list in UTF-8") from error
    return [line for line in lines if line and not line.startswith("#")]


def _found(given: str, note: Callable[[str], None]) -> list[Source]:
    """Raises ``MediaError`` with the whole sentence for an input that stands for nothing."""
    name = shortened(printable(shown(given)))
    if remote.is_remote(given):
        return _behind(given, name, note)
    if given == STANDARD_INPUT:
        digest = hashlib.sha256(_standard_input()).hexdigest()
        return [Source(None, STANDARD_INPUT, Path("stdin.jpg"), f"sha256:{digest}")]
    if Path(given).is_dir():
        folder = Path(given)
        files = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
        if kept := _known(files, name, note):
            return [_file(one, one.relative_to(folder)) for one in kept]
        raise MediaError(f"{name}: no images or videos in this folder")
    if os.path.lexists(given):
        if os.path.exists(given) and not os.path.isfile(given):
            raise MediaError(
                f"{name}: expected a file, and this is a pipe or a device, which cannot be read "
                "twice; pass a pipe as standard input, with - as its name"
            )
        return [_file(Path(given), Path(Path(given).name))]
    if not glob.has_magic(given):
        with contextlib.suppress(FileNotFoundError):
            os.stat(given)  # raises the reason, such as a name that is too long
        raise MediaError(f"{name}: no such file or folder")
    matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]
    files = [path for path in matches if path.is_file() or path.is_symlink()]
    if kept := _known(files, name, note):
        return [_file(path, Path(path.name)) for path in kept]
    raise MediaError(f"{name}: nothing matches")


def printable(name: str) -> str:
    """A file's name as text; bytes of it that are no UTF-8 as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def shortened(name: str) -> str:
    """A name for a message."""
    return name if len(name) <= 120 else f"{name[:80]}...{name[-30:]}"


def _known(files: Sequence[_Name], name: str, note: Callable[[str], None]) -> list[_Name]:
    """Images and videos among files or addresses; the others are noted by kind."""
    kept, others = [], defaultdict(list)
    for file in files:
        linked_folder = isinstance(file, Path) and file.is_dir()
        last = file.name if isinstance(file, Path) else remote.name_of(file)
        kind = PurePosixPath(last).suffix.lower()
        if kind in IMAGE_SUFFIXES | VIDEO_SUFFIXES and not linked_folder:
            kept.append(file)
        elif not last.startswith("."):
            others[kind].append(printable(last))
    if others:
        count = sum(map(len, others.values()))
        kinds = "; ".join(
            shortened(named[0])
            + (f" and {len(named) - 1} more {kind}".rstrip() if named[1:] else "")
            for kind, named in sorted(others.items())
        )
        note(f"{name}: {count} of the files are no images or videos, and not read: {kinds}")
    return kept


def _behind(address: str, name: str, note: Callable[[str], None]) -> list[Source]:
    try:
        found = remote.addresses_below(address)
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    if found != [address]:
        found = _known(found, name, note)
    if not found:
        raise MediaError(f"{name}: no images or videos there")
    return [
        Source(None, shown(one), _place(one), remote.canonical(shown(one)), one) for one in found
    ]


def _differs(one: str | None, other: str | None) -> bool:
    """Whether these addresses of one identity are two: by a part that is taken for a secret."""
    return bool(one and other and remote.canonical(one) != remote.canonical(other))


def _content_is_video(address: str) -> bool:
    try:
        return not _is_picture(remote.first_bytes(address, 64))
    except MediaError:  # raised again, and reported, when the image is read
        return False


def _place(address: str) -> Path:
    name = remote.name_of(shown(address))
    return Path(name if name.strip(".") else "address.jpg")


def _file(path: Path, place: Path) -> Source:
    address = Path(os.path.realpath(path.parent), path.name).as_uri()  # of any name, and no other's
    return Source(path, printable(str(path)), place, address)


def _standard_input() -> bytes:
    """All of it: its content decides whether it is an image or a video."""
    return _all_of(sys.stdin.buffer)


@lru_cache(maxsize=1)
def _all_of(stream: BinaryIO) -> bytes:
    return stream.read()


def _is_picture(data: bytes) -> bool:
    return is_image(data) or is_heic(data)


def read_picture(source: Source) -> Image:
    """The image as RGB uint8 ``(height, width, 3)``, upright.

    Raises:
        MediaError: it cannot be read or does not decode.
    """
    try:
        if source.address is not None:
            data = remote.read_bytes(source.address, _LIMITS.max_bytes)
        else:
            data = _standard_input() if source.path is None else source.path.read_bytes()
        return decode_image(data, _LIMITS)
    except OSError as error:
        dead = source.path is not None and source.path.is_symlink() and not source.path.exists()
        reason = "a link to a file that is not there" if dead else error.strerror
        raise MediaError(reason or "cannot be read") from error
    except ImageFileError as error:
        raise MediaError(str(error)) from error
