"""Images and videos behind an address: object stores and web servers, through fsspec."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, cast
from urllib.parse import urlsplit

from sdpose_core.io.problems import MediaError

WEB: Final = frozenset(("http", "https"))
STORES: Final = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"))
_TIMEOUT_S: Final = 30.0
"""Without a byte; a whole file may take longer."""


def scheme(name: str) -> str:
    """``s3`` of ``s3://bucket/key``; empty for the path of a file."""
    head, mark, _ = name.partition("://")
    return head.lower() if mark and head.replace("+", "").isalnum() else ""


def is_remote(name: str) -> bool:
    """Whether a name is an address that is read through fsspec."""
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
    """``.jpg`` of ``https://host/a.JPG?size=2``; empty where there is none."""
    return PurePosixPath(name_of(address)).suffix.lower()


def split(address: str) -> tuple[Any, str]:
    """The file system of an address and the path on it.

    Raises:
        MediaError: a package for it is missing, or its settings are wrong.
    """
    with _told():
        return _file_system(scheme(address)), _path(address)


def addresses_below(address: str) -> list[str]:
    """Every file that an address stands for: itself, those below a prefix, or those of a glob.

    Sorted. Of the web an address is always one file, which need not exist.

    Raises:
        MediaError: the store does not say, or nothing is there.
    """
    if scheme(address) in WEB:
        return [address]
    files, path = split(address)
    with _told():
        if any(sign in path for sign in "*?["):
            found = [name for name in files.glob(path) if not name.endswith("/")]
        elif files.isfile(path):
            found = [path]
        else:
            found = files.find(path)
            if not found:
                files.ls(path)  # says whether the bucket is missing or forbidden, or only empty
                raise MediaError("nothing is there")
    return [f"{scheme(address)}://{name.lstrip('/')}" for name in sorted(found)]


def read_bytes(address: str, limit: int) -> bytes:
    """A whole file of at most `limit` bytes.

    Raises:
        MediaError: it cannot be read, or is larger.
    """
    with _told(), _opened(address) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise MediaError(f"larger than {limit // 2**20} MiB")
    return bytes(data)


def first_bytes(address: str, count: int) -> bytes:
    """The beginning of a file; raises `MediaError` where it cannot be read."""
    with _told(), _opened(address) as file:
        return bytes(file.read(count))


@contextlib.contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """A file to read from anywhere in it, fetched in pieces; failures while reading are `OSError`.

    Raises:
        MediaError: it cannot be opened.
    """
    files, path = split(address)
    with _told():
        file = files.open(path, "rb", block_size=2**22)
    with file:
        yield cast(BinaryIO, _Pieces(file))


class _Pieces:
    """As much of a file as a video reader asks for."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        try:
            with _told():
                return bytes(self._file.read(size))
        except MediaError as error:
            raise OSError(str(error)) from error


def _opened(address: str) -> Any:
    """A file to read once from the beginning, without asking for its size before."""
    files, path = split(address)
    options = {"block_size": 0} if scheme(address) in WEB else {"cache_type": "none"}
    return files.open(path, "rb", **options)


def _path(address: str) -> str:
    return address if scheme(address) in WEB else address.partition("://")[2]


@lru_cache(maxsize=8)
def _file_system(protocol: str) -> Any:
    import fsspec

    if protocol in WEB:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, connect=_TIMEOUT_S, sock_read=_TIMEOUT_S)
        return fsspec.filesystem(protocol, client_kwargs={"timeout": timeout})
    if protocol in ("s3", "s3a"):
        bounds = {"connect_timeout": _TIMEOUT_S, "read_timeout": _TIMEOUT_S}
        return fsspec.filesystem(protocol, config_kwargs=bounds, use_listings_cache=False)
    return fsspec.filesystem(protocol)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Every failure of a store or server as `MediaError` of one sentence."""
    try:
        yield
    except MediaError:
        raise
    except ImportError as error:
        raise MediaError(f"reading it needs a package: {error}") from error
    except Exception as error:
        raise MediaError(reason(error)) from error


def reason(error: Exception) -> str:
    """What went wrong between us and a store or a server, in a few words."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        return reason(error.__cause__)  # fsspec calls a server that is not there a missing file
    if (status := getattr(error, "status", None)) is not None and status != 404:  # aiohttp
        return f"the server answered {status}"
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_S:.0f} s"
    if isinstance(error, PermissionError) or "credentials" in str(error).lower():
        return f"access denied ({_line(error)})"
    if isinstance(error, FileNotFoundError) or status == 404:
        return "there is no such file"
    return _line(error)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
