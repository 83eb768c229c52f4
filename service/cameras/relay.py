"""Relay to one RTSP camera through this process that ends the connection at a redirect.

FFmpeg follows the redirects of a camera wherever they lead, and has no option against it.
"""

from __future__ import annotations

import re
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from sdpose_core.io.problems import MediaError

_TIMEOUT_S: Final = 10.0
_CHUNK: Final = 2**16
_MARK: Final = b"RTSP/"
_STATUS: Final = re.compile(rb"RTSP/\S+\s+[1245]\d\d(\s|$)")
_LONGEST_LINE: Final = 4096


class _RedirectedError(Exception):
    """The camera answered with something other than a plain status."""


class _ResponseFilter:
    """Responses of a camera before it plays; holds a status line back until it is complete."""

    def __init__(self) -> None:
        self._held = b""

    def passed(self, data: bytes) -> bytes:
        """The part of the data that may be passed on. Raises `_RedirectedError` at a redirect."""
        *lines, last = (self._held + data).split(b"\n")
        for line in [*lines, last] if len(last) > _LONGEST_LINE else lines:
            if line.startswith(_MARK) and not _STATUS.match(line):
                raise _RedirectedError
        # A body may end without a line feed: only what may become a status line waits.
        waits = last.startswith(_MARK[: len(last)]) and bool(last)
        self._held = last if waits else b""
        return b"\n".join([*lines, b"" if waits else last])


@contextmanager
def relayed(hosts: Sequence[tuple[Any, ...]], *, encrypted: bool) -> Iterator[int]:
    """A port on loopback that is relayed to the camera, for one connection.

    `hosts` are its socket addresses, tried in turn. Raises `MediaError` if none answers, or if the
    block failed because the camera redirected.
    """
    with _connected(hosts, encrypted) as camera, _listening() as listener:
        relay = _Relay(camera, listener)
        try:
            yield listener.getsockname()[1]
        except Exception as error:
            if relay.redirected:
                raise MediaError("it leads to another address, which is not followed") from error
            raise
        finally:
            relay.stop()


class _Relay(threading.Thread):
    def __init__(self, camera: socket.socket, listener: socket.socket) -> None:
        super().__init__(name="camera relay", daemon=True)
        self._camera = camera
        self._listener = listener
        self._waking, self._stopping = socket.socketpair()
        self.redirected = False
        self.start()

    def stop(self) -> None:
        self._stopping.close()
        self.join()
        self._waking.close()

    def run(self) -> None:
        with suppress(OSError, _RedirectedError):
            if self._listener not in self._ready(self._listener):
                return
            reader, _ = self._listener.accept()
            with reader:
                reader.settimeout(_TIMEOUT_S)
                self._pass_on(reader)

    def _ready(self, *sockets: socket.socket) -> list[socket.socket]:
        """The sockets that can be read; none when it is time to stop."""
        with selectors.DefaultSelector() as selector:
            for each in (*sockets, self._waking):
                selector.register(each, selectors.EVENT_READ)
            found = [key.fileobj for key, _ in selector.select()]
        return [] if self._waking in found else [each for each in sockets if each in found]

    def _pass_on(self, reader: socket.socket) -> None:
        responses: _ResponseFilter | None = _ResponseFilter()
        while ready := self._ready(reader, self._camera):
            if reader in ready:
                request = reader.recv(_CHUNK)
                if request.startswith(b"PLAY "):  # frames follow, and no redirect counts
                    responses = None
                self._camera.sendall(request)
                if not request:
                    return
            if self._camera in ready:
                response = self._camera.recv(_CHUNK)
                while isinstance(self._camera, ssl.SSLSocket) and (more := self._camera.pending()):
                    response += self._camera.recv(more)
                try:
                    reader.sendall(response if responses is None else responses.passed(response))
                except _RedirectedError:
                    self.redirected = True
                    raise
                if not response:
                    return


def _listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=1)


@contextmanager
def _connected(hosts: Sequence[tuple[Any, ...]], encrypted: bool) -> Iterator[socket.socket]:
    """Raises `MediaError`."""
    failure: OSError | None = None
    for host in hosts:
        try:
            line = socket.create_connection(host[:2], _TIMEOUT_S)
        except OSError as error:
            failure = error
            continue
        with line:
            try:
                whole = _encrypted(line) if encrypted else line
            except OSError as error:
                raise MediaError(f"it cannot be read: {error.strerror or 'no TLS'}") from error
            with whole:
                yield whole
        return
    reason = "no answer" if failure is None else failure.strerror or "no answer"
    raise MediaError(f"it cannot be read: {reason}") from failure


def _encrypted(line: socket.socket) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # cameras show certificates that they signed themselves
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(line)
