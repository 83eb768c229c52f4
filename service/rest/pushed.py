"""Answers that go on for as long as there is news: server-sent events and live images."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.rest.connection import ClientGoneError, while_connected


class PushedResponse(Response):
    """Sends chunks as they come, until they end or the client leaves.

    Unlike the framework's own it notices a client that leaves while no chunk comes. One that does
    not read is ended by `service.rest.protocol`.
    """

    def __init__(self, chunks: AsyncIterator[bytes], *, media_type: str) -> None:
        super().__init__(
            media_type=media_type,
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},  # nginx holds nothing
        )
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI answer."""
        try:
            await while_connected(Request(scope, receive), self._send_all(send))
        except ClientGoneError:
            await self._end(send)  # where it only sent a body without end

    async def _send_all(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._end(send)

    async def _end(self, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
