"""Images and videos behind an address: object stores through fsspec, web servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, cast
from urllib.parse import urlsplit

from sdpose_core.io.addresses import without_secrets
from sdpose_core.io.problems import MediaError
from sdpose_core.io.web import PATIENCE_S, SILENCE_S, SLOWEST, WebFile
from sdpose_core.messages import error_line

WEB: Final = frozenset(("http", "https"))
STORES: Final = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"))


def scheme(name: str) -> str:
    """``s3`` of ``s3://bucket/key``; empty for the path of a file."""
    head, mark, _ = name.partition("://")
    return head.lower() if mark and head.replace("+", "").isalnum() else ""


def is_remote(name: str) -> bool:
    """Whether a name is an address that is read from a store or a server."""
    return scheme(name) in WEB | STORES


def canonical(address: str) -> str:
    """The same for all spellings of an address: its user and password are no part of it."""
    kind = {"s3a": "s3", "gcs": "gs"}.get(scheme(address), scheme(address))
    if kind not in WEB:
        return f"{kind}://{address.partition('://')[2]}"
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2].lower()
    return parts._replace(scheme=kind, netloc=host, fragment="").geturl()


def name_of(address: str) -> str:
    """The last part of its path: ``a.JPG`` of ``https://host/b/a.JPG?size=2``."""
    path = urlsplit(address).path if scheme(address) in WEB else address.partition("://")[2]
    return path.rsplit("/", 1)[-1]


def suffix(address: str) -> str:
    """``.jpg`` of ``https://host/a.JPG?size=2``; empty if there is none."""
    return PurePosixPath(name_of(address)).suffix.lower()


def split(address: str) -> tuple[Any, str]:
    """The file system of a store's address and the path on it.

    Raises:
        MediaError: a package for it is missing, or its settings are wrong.
    """
    with _as_media_error(address):
        return _file_system(scheme(address)), address.partition("://")[2]


def addresses_below(address: str) -> list[str]:
    """Every file that an address stands for: itself, those below a prefix, or those of a glob.

    Sorted. Of the web an address is always one file, which need not exist.

    Raises:
        MediaError: the store does not say, or nothing is there.
    """
    if scheme(address) in WEB:
        return [address]
    files, path = split(address)
    with _as_media_error(address):
        if any(sign in path for sign in "*?["):
            found = [name for name in files.glob(path) if not name.endswith("/")]
        elif files.isfile(path):
            found = [path]
        else:
            found = files.find(path)
            if not found:
                files.ls(path)  # raises if the bucket is missing or forbidden, not only empty
                raise MediaError("nothing is there")
    return [f"{scheme(address)}://{name.lstrip('/')}" for name in sorted(found)]


def read_bytes(address: str, limit: int) -> bytes:
    """A whole file of at most `limit` bytes, in a time that its size bounds.

    Raises:
        MediaError: it cannot be read to its end, or is larger.
    """
    if scheme(address) in WEB:
        with WebFile(address) as file:
            size = file.size or 0
            data = file.read(limit + 1) if size <= limit else b""
    else:
        files, path = split(address)
        with _as_media_error(address):
            size = files.size(path)
            data = _whole(files, path, size) if size <= limit else b""
    if max(size, len(data)) > limit:
        raise MediaError(f"larger than {limit // 2**20} MiB")
    return data


def _whole(files: Any, path: str, size: int) -> bytes:
    from fsspec.asyn import sync

    longest_s = PATIENCE_S + size / SLOWEST
    try:
        data: bytes = sync(files.loop, asyncio.wait_for, files._cat_file(path), longest_s)
    except TimeoutError as error:
        raise MediaError(f"too slow: not {size} bytes in {longest_s:.0f} s") from error
    if len(data) < size:
        raise MediaError(f"it ended after {len(data)} of {size} bytes")
    return data


def first_bytes(address: str, count: int) -> bytes:
    """The beginning of a file; raises `MediaError` if it cannot be read."""
    if scheme(address) in WEB:
        with WebFile(address) as file:
            return file.read(count)
    files, path = split(address)
    with _as_media_error(address), files.open(path, "rb", cache_type="none") as file:
        return bytes(file.read(count))


@contextlib.contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """A file to read from anywhere in it, fetched in pieces; failures are `MediaError`."""
    if scheme(address) in WEB:
        with WebFile(address) as web_file:
            yield cast(BinaryIO, web_file)
        return
    files, path = split(address)
    with _as_media_error(address):
        file = files.open(path, "rb", block_size=2**22)
    with file:
        yield cast(BinaryIO, _Pieces(file, address))


class _Pieces:
    """A file of a store; its failures become `MediaError`."""

    def __init__(self, file: Any, address: str) -> None:
        self._file = file
        self._address = address
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        with _as_media_error(self._address):
            count = self._file.size - self._file.tell()
            count = count if size < 0 else min(size, count)
            data = bytes(self._file.read(count))
        if len(data) < count:
            raise MediaError(f"it ended after {self._file.tell()} of {self._file.size} bytes")
        return data


@lru_cache(maxsize=8)
def _file_system(protocol: str) -> Any:
    import fsspec

    if protocol in ("s3", "s3a"):
        bounds = {"connect_timeout": SILENCE_S, "read_timeout": SILENCE_S}
        return fsspec.filesystem(protocol, config_kwargs=bounds, use_listings_cache=False)
    return fsspec.filesystem(protocol)


@contextlib.contextmanager
def _as_media_error(address: str) -> Iterator[None]:
    """Every failure of a store or server as `MediaError` of one sentence, without secrets."""
    try:
        yield
    except MediaError:
        raise
    except ImportError as error:
        raise MediaError(f"reading it needs a package: {error}") from error
    except Exception as error:
        raise MediaError(without_secrets(reason(error), address)) from error


def reason(error: Exception) -> str:
    """Cause of an error between us and a store or a server, in a few words."""
    if isinstance(error, TimeoutError):
        return f"no answer within {SILENCE_S:.0f} s"
    if isinstance(error, PermissionError) or "credentials" in str(error).lower():
        return f"access denied ({error_line(error, 160)})"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return error_line(error, 160)
