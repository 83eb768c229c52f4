"""A file of the web: all of it, or a failure; resumed if the line breaks, and never for ever.

httpx reports when an answer ends before its length. What it leaves to its callers is here: going on
from where an answer broke off (``Range`` with ``If-Range``), and a bound in time for the whole,
which a bound for each wait is not: a server may send a byte at a time.
"""

from __future__ import annotations

import asyncio
import io
import re
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from functools import lru_cache
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx

from sdpose_core.io.addresses import without_secrets
from sdpose_core.io.problems import MediaError
from sdpose_core.messages import error_line

SILENCE_S: Final = 30.0
"""Longest wait for a connection, and for each piece."""
PATIENCE_S: Final = 60.0
"""Waited for a file in all, and a second more for each ``SLOWEST`` bytes that came."""
SLOWEST: Final = 2**16
PAUSES_S: Final = (0.5, 1.0, 2.0)
"""Before each try to go on, if no byte came since the last."""
_SKIPPED: Final = 2**20
"""Bytes ahead that are read over rather than requested again."""
_PASSING: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
_T = TypeVar("_T")


class WebFile:
    """A file to read from anywhere in it; a context manager.

    Args:
        address: ``http://`` or ``https://``.
        patience_s: waited in all, besides what its size allows.
        tries: to go on if the line breaks.

    Attributes:
        size: in bytes; None if the server does not send it.
        kind: of its content, from the server: ``video/mp4``.

    Raises:
        MediaError: it is not there, or the server does not answer; of ``read`` too, if the file
            cannot be read on, comes too slowly or changed meanwhile.
    """

    def __init__(
        self, address: str, *, patience_s: float = PATIENCE_S, tries: int = len(PAUSES_S)
    ) -> None:
        self._address = address
        self._patience_s = patience_s
        self._pauses_s = PAUSES_S[:tries]
        self._waited_s = 0.0
        self._received = 0
        self._at = 0
        self._version: str | None = None
        self._ranges = True
        self._answer: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None
        self._rest = b""
        self.size: int | None = None
        self.kind = ""
        try:
            _ = urlsplit(address).port  # httpx leaves it to the system to find it out of range
        except ValueError as error:
            reason = without_secrets(str(error), address)
            raise MediaError(f"not an address of the web: {reason}") from error
        try:
            self._rest = _done(self._gather(1)) + self._rest
        except BaseException:
            self.close()
            raise
        self._at = 0

    def __enter__(self) -> WebFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def seekable(self) -> bool:
        return self.size is not None

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END and self.size is None:
            raise OSError("the server does not say how long the file is")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size or 0}[whence]
        target = max(0, base + offset)
        if 0 < target - self._at <= _SKIPPED:
            _done(self._gather(target - self._at))
        elif target != self._at:
            self._at, self._rest = target, b""
            _done(self._leave())
        return self._at

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end; all without a number."""
        return _done(self._gather(size if size >= 0 else None))

    def close(self) -> None:
        _done(self._leave())

    async def _leave(self) -> None:
        answer, self._answer, self._pieces = self._answer, None, None
        if answer is not None:
            await answer.aclose()

    async def _gather(self, count: int | None) -> bytes:
        data = bytearray()
        failures = 0
        began_s = time.monotonic()
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            async with asyncio.timeout(None) as bound:
                while count is None or len(data) < count:
                    left_s = self._patience_s + self._received / SLOWEST - self._waited_s
                    bound.reschedule(start + left_s)
                    try:
                        piece = await self._piece()
                    except MediaError:
                        raise
                    except Exception as error:
                        await self._leave()
                        if failures >= len(self._pauses_s) or not _passes(error):
                            raise MediaError(self._reason(error)) from error
                        await asyncio.sleep(self._pauses_s[failures])
                        failures += 1
                        continue
                    if not piece:
                        break
                    failures = 0
                    taken = len(piece) if count is None else count - len(data)
                    data += piece[:taken]
                    self._at += len(piece[:taken])
                    self._rest = piece[taken:]
        except TimeoutError as error:
            await self._leave()
            waited_s = self._waited_s + time.monotonic() - began_s
            raise MediaError(f"too slow: {self._how_far()} in {waited_s:.0f} s") from error
        finally:
            self._waited_s += time.monotonic() - began_s
        return bytes(data)

    async def _piece(self) -> bytes:
        """The next piece; empty at the end."""
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        if self.size is not None and self._at >= self.size:
            return b""
        if self._pieces is None and (piece := await self._ask()):
            return piece
        assert self._pieces is not None
        piece = await anext(self._pieces, b"")
        self._received += len(piece)
        if not piece and self.size is None:
            self.size = self._at
        return piece

    async def _ask(self) -> bytes:
        """Asks for what comes next; returns its first bytes, where the answer begins before it."""
        headers = {}
        if self._at and self._ranges:
            headers["Range"] = f"bytes={self._at}-"
            if self._version is not None:
                headers["If-Range"] = self._version
        client = _client()
        request = client.build_request("GET", self._address, headers=headers)
        self._answer = answer = await client.send(request, stream=True)
        answer.raise_for_status()
        at, size = _extent(answer)
        version = _version(answer)
        same = self.size is None or size is None or size == self.size
        if at > self._at or (self._received and not (same and version == self._version)):
            raise MediaError("it changed while it was read")
        self.size, self._version = self.size if size is None else size, version
        self.kind = answer.headers.get("content-type", "").lower()
        self._ranges = "content-encoding" not in answer.headers
        self._pieces = answer.aiter_bytes()
        rest = b""
        while at < self._at:  # a server without ranges begins at the beginning
            piece = await anext(self._pieces, b"")
            if not piece:
                raise MediaError("it changed while it was read")
            self._received += len(piece)
            rest = piece[self._at - at :]
            at += len(piece)
        return rest

    def _how_far(self) -> str:
        return f"{self._at} bytes" + (f" of {self.size}" if self.size is not None else "")

    def _reason(self, error: Exception) -> str:
        if isinstance(error, httpx.HTTPStatusError):
            status = error.response.status_code
            return "there is no such file" if status == 404 else f"the server answered {status}"
        if isinstance(error, httpx.TimeoutException):
            return f"no answer within {SILENCE_S:.0f} s, after {self._how_far()}"
        if self._received or self.size:
            return f"the connection broke off after {self._how_far()}"
        what = without_secrets(error_line(error), self._address)
        return f"cannot connect: {what}" if isinstance(error, httpx.ConnectError) else what


def _passes(error: Exception) -> bool:
    """Whether it is worth another try."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _PASSING
    lasting = httpx.ConnectError | httpx.UnsupportedProtocol
    return isinstance(error, httpx.TransportError) and not isinstance(error, lasting)


def _extent(answer: httpx.Response) -> tuple[int, int | None]:
    """Where in the file an answer begins, and the size of the file."""
    if answer.status_code == 206:
        sent = re.match(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("content-range", ""))
        if sent is None:
            raise MediaError("the server answered with a part of it, and not with which")
        return int(sent[1]), int(sent[2])
    length = answer.headers.get("content-length", "")
    if "content-encoding" in answer.headers or not length.isdecimal():
        return 0, None
    return 0, int(length)


def _version(answer: httpx.Response) -> str | None:
    """Value for ``If-Range``: a strong ETag, or a date."""
    tag: str = answer.headers.get("etag", "")
    return tag if tag.startswith('"') else answer.headers.get("last-modified")


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all files: waiting there can be ended, which bounds the time."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="web", daemon=True).start()
    return loop


@lru_cache(maxsize=1)
def _client() -> httpx.AsyncClient:
    """One for all, which keeps connections; used on `_loop` only."""
    return httpx.AsyncClient(
        follow_redirects=True, headers={"Accept-Encoding": "identity"}, timeout=SILENCE_S
    )


def _done(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()
