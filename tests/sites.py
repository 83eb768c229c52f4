"""A web server for tests, which answers as told."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """One on a free port of this machine."""

    answer: Answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Request(http.server.BaseHTTPRequestHandler):
    """One request: what a test's server answers it with."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        with suppress(OSError):  # the reader left
            self.server.answer(self)  # type: ignore[attr-defined]
        self.close_connection = True

    do_POST = do_GET

    def begin(self) -> int:
        """Where the client wants to begin."""
        return int(self.headers.get("Range", "bytes=0-")[6:-1])

    def head(self, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")  # which it is, after each answer
        self.end_headers()

    def part(self, data: bytes, stop: int | None = None, tag: str = '"1"') -> None:
        """The file from where it is wanted to the end, or to `stop` only, as if the line broke."""
        at = self.begin()
        if at and self.headers.get("If-Range") == tag:
            extent = f"bytes {at}-{len(data) - 1}/{len(data)}"
            self.head(206, Content_Length=len(data) - at, Content_Range=extent, ETag=tag)
        else:
            at = 0
            self.head(Content_Length=len(data), ETag=tag)
        self.wfile.write(data[at:stop])


Answer = Callable[[Request], None]


@contextmanager
def serving_by(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[Server]:
    """A server of this machine whose requests a handler answers."""
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    with serving_by(Request) as server:
        server.answer = answer
        yield f"{server.url}/a.jpg"


@contextmanager
def served_folder(folder: Path) -> Iterator[str]:
    """A web server over a folder."""
    with serving_by(partial(_Quiet, directory=str(folder))) as server:
        yield server.url


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
