"""What comes over a raw connection and is no proper request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.rest import server as server_module
from service.rest.protocol import MAX_HEAD_BYTES
from tests.fakes import FakeEstimator, marked_image
from tests.pictures import encoded
from tests.service.conftest import Service, serving

pytestmark = pytest.mark.anyio

PNG = encoded(marked_image(0x010203), "PNG")
PIECE = b"a" * 2**14
ASK = (
    b"POST /pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@asynccontextmanager
async def connected(
    service: Service,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    port = int(service.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(100):
        yield reader, writer
    writer.close()


def chunked(data: bytes, size: int) -> bytes:
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


async def keep_sending(writer: asyncio.StreamWriter) -> int:
    """Piece after piece of one header until the other side ends it; gives how many bytes."""
    sent = 0
    try:
        while sent < 100 * MAX_HEAD_BYTES:
            writer.write(PIECE)
            await writer.drain()
            await asyncio.sleep(0.001)
            sent += len(PIECE)
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize(
    "beginning",
    [b"GET /", b"GET /livez HTTP/1.1\r\nX: ", ASK + chunked(PNG, 64) + b"0\r\nX: "],
    ids=["path", "header", "header after the body"],
)
async def test_a_head_without_end_is_refused(service: Service, beginning: bytes) -> None:
    async with connected(service) as (_, writer):
        writer.write(beginning)
        assert await keep_sending(writer) < 50 * MAX_HEAD_BYTES


async def test_the_refusal_is_told(service: Service) -> None:
    async with connected(service) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES)
        told = await reader.read()
        assert told.startswith(b"HTTP/1.1 400 ")
        assert told.endswith(b"The head of the request is too large.")


async def test_a_body_in_tiny_chunks_is_none_of_it(service: Service) -> None:
    async with connected(service) as (reader, writer):
        for _ in range(2):  # the second on the same connection
            writer.write(ASK + chunked(PNG + bytes(MAX_HEAD_BYTES), 1) + b"0\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            assert b"keypoints" in await reader.readexactly(length)


@pytest.mark.parametrize("beginning", [b"", b"GET /livez HTTP/1.1\r\nX: "], ids=["new", "begun"])
async def test_a_head_that_does_not_come_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(server_module, "_KEEP_ALIVE_S", 0.1)
    async with serving(FakeEstimator()) as service, connected(service) as (reader, writer):
        writer.write(beginning)
        assert await reader.read() == b""


async def test_a_slow_body_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_KEEP_ALIVE_S", 0.5)
    async with serving(FakeEstimator()) as service, connected(service) as (reader, writer):
        writer.write(ASK)
        await asyncio.sleep(0.6)  # longer than a head may take
        writer.write(chunked(PNG, 64) + b"0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
