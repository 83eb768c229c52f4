"""HTTP/1.1 and WebSockets with the bounds that uvicorn lacks, on every path, read or not.

A request's head is bounded in bytes, headers and time; its body and each piece of an answer in
time; connections in number (`service.rest.connections`). uvicorn's own timer runs only between two
requests, and its parsers take all that a read brings in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.rest.connections import Connections

MAX_HEAD_BYTES = 64 * 2**10
_MAX_HEADERS = 128
_MAX_PIPELINED = 8
_SLICE = 4096  # bytes
_LONGEST_TURN_S, _PAUSE_S = 0.005, 0.02
_REJECTION = (
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\n\r\ntoo many connections\n"
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the connections of one port. A body, and the buffered part of an answer, have
    `longest_s` seconds.
    """

    connections: Connections
    longest_s: float


class BoundedHttpProtocol(HttpToolsProtocol):
    """Rejects a head, or the headers after a body, of more than about `MAX_HEAD_BYTES`.

    A connection on which no whole head comes within the keep-alive time is closed, be it new or
    in the middle of one; one whose body is late, after the answer; one that does not read, at once.
    """

    _rejected = False
    _unfinished_bytes = 0
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, bounds: Bounds, **more: Any) -> None:
        super().__init__(*args, **more)
        self._bounds = bounds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = get_remote_addr(transport)
        if not self._bounds.connections.add(self, peer[0] if peer else None):
            self.transport, self._rejected = transport, True
            transport.write(_REJECTION)
            transport.close()
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._bounds.connections.remove(self)
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._rejected:
            return
        # What is body, or ends a head, sets it back: only what the parser must keep adds up.
        self._unfinished_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # it is over, or a WebSocket from now on
        if self._unfinished_bytes > MAX_HEAD_BYTES:
            self.send_400_response("The head of the request is too large.")
        elif self.cycle is None or self.cycle.response_complete:
            self._expect_head()  # also after nothing but empty lines

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise httptools.HttpParserError("too many requests at once")
        self._expect_head()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= _MAX_HEADERS:
            raise httptools.HttpParserError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unfinished_bytes = 0
        self._head_came()
        self._reading = self.loop.call_later(self._bounds.longest_s, self._body_late)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished_bytes = 0
        self._head_came()
        self._bounds.connections.works(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._bounds.connections.waits(self, self.transport.abort)
        self._expect_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def to_the_end(scope: Any, receive: Any, send: Any) -> None:
            async def sent(message: Any) -> None:
                # uvicorn notifies only the last of several requests; uvloop raises when closed.
                cycle.disconnected |= self.transport.is_closing() and not cycle.response_complete
                await send(message)

            await app(scope, receive, sent)

        super()._start_asgi_task(cycle, to_the_end)

    def handle_websocket_upgrade(self) -> None:
        self._stop_timers()
        super().handle_websocket_upgrade()
        self._bounds.connections.replace(self, self.transport.get_protocol())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bounds.connections.waits(self, self.transport.abort)
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if self.cycle is None or self.cycle.response_complete:
            self._expect_reading()
        else:
            self._bounds.connections.works(self)

    def timeout_keep_alive_handler(self) -> None:
        self._end()

    def _expect_head(self) -> None:
        if self._reading is None:
            self._bounds.connections.waits(self, self.transport.abort)
            self._reading = self.loop.call_later(self.timeout_keep_alive, self._end)

    def _head_came(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _body_late(self) -> None:
        self._reading = None
        if self.cycle is None or self.cycle.response_complete:
            self._end()
        else:
            self.cycle.keep_alive = False  # its reader gets the error, and the answer is the last

    def _expect_reading(self) -> None:
        """Gives the client time to take what is buffered."""
        if self._writing is None and self.transport.get_write_buffer_size():
            self._writing = self.loop.call_later(self._bounds.longest_s, self._unread)

    def _unread(self) -> None:
        self._writing = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _end(self) -> None:
        # To close is to wait for a client that reads.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _stop_timers(self) -> None:
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()
        self._reading = self._writing = None


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """Takes what comes in short turns with pauses, and one message at a time.

    A client may send ten thousand fragments, pings or messages in one read.
    """

    _lost = False
    _later: asyncio.Handle | None = None
    _closing: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, bounds: Bounds, **more: Any) -> None:
        super().__init__(*args, **more)
        self._bounds = bounds
        self._unread = bytearray()

    def connection_lost(self, exc: Exception | None) -> None:
        self._bounds.connections.remove(self)
        self._lost = True
        for handle in (self._later, self._closing):
            if handle is not None:
                handle.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if self._later is None:
            self._take()

    def handle_cont(self, event: Any) -> None:
        if isinstance(self.frames[0], bytes):
            self.frames[0] = bytearray(self.frames[0])  # type: ignore[call-overload]
        self.frames[0] += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        message = bytes(self.frames[0])
        if self.curr_msg_data_type == "text":
            try:
                message.decode()
            except UnicodeDecodeError:  # the library would log it as a fault of ours
                self.conn.send_close(1007)
                self.handle_parser_exception()
                return
        self.frames = [message]
        super().send_receive_event_to_app()

    async def receive(self) -> Any:
        message = await super().receive()
        self._go_on()
        return message

    async def send(self, message: Any) -> None:
        self.disconnected |= self.transport.is_closing()  # as of `BoundedHttpProtocol`
        await super().send(message)
        self._go_on()  # after a close its answer may be there already

    def _go_on(self) -> None:
        if self._unread and self._later is None:
            self._later = self.loop.call_soon(self._take)

    async def run_asgi(self) -> None:
        try:
            await super().run_asgi()
        finally:
            if not self._lost:  # it is closing, and waits for a client that reads
                abort = self.transport.abort
                self._closing = self.loop.call_later(self._bounds.longest_s, abort)

    def _take(self) -> None:
        self._later = None
        end = time.perf_counter() + _LONGEST_TURN_S
        while self._unread and not self.read_paused and not self.transport.is_closing():
            piece = bytes(self._unread[:_SLICE])
            del self._unread[:_SLICE]
            super().data_received(piece)
            if self.conn.handshake_exc is not None and not self.handshake_initiated:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                self.transport.close()
            elif time.perf_counter() > end:
                self._later = self.loop.call_later(_PAUSE_S, self._take)
                return
