"""What comes over a raw connection and is no proper request."""

from __future__ import annotations

import asyncio
import io
import resource
import select
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import structlog

from sdpose_client import RestPoseClient
from service.rest import server as server_module
from service.rest.connections import Connections
from service.rest.protocol import MAX_HEAD_BYTES
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import Service, serving, wait_until
from tests.service.processes import a_process, free_port

pytestmark = pytest.mark.anyio

PIECE = b"a" * 2**14
ASK = (
    b"POST /pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
WS = (
    b"GET /pose/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@asynccontextmanager
async def connected(
    service: Service, port: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    port = port or service.addresses.http_port
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


async def test_a_web_socket_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_KEEP_ALIVE_S", 0.2)
    async with serving(FakeEstimator()) as service, connected(service) as (reader, writer):
        writer.write(WS)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.3)  # longer than a head may take
        writer.write(b"\x82\x81\0\0\0\0a")
        assert b"unsupported_media_type" in await reader.read(2**12)


async def test_a_slow_body_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_KEEP_ALIVE_S", 0.5)
    async with serving(FakeEstimator()) as service, connected(service) as (reader, writer):
        writer.write(ASK)
        await asyncio.sleep(0.6)  # longer than a head may take
        writer.write(chunked(PNG, 64) + b"0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")


DRIPS = ["POST /pose", "POST /pose/overlay", "POST /cameras", "POST /admin/reload", "GET /livez",
         "GET /metrics", "GET /cameras", "POST /nothing", "DELETE /cameras/a"]  # fmt: skip


@pytest.mark.parametrize("asked", DRIPS)
@pytest.mark.parametrize("port", ["callers", "operator"])
async def test_every_body_has_an_end(quiet_logs: io.StringIO, asked: str, port: str) -> None:
    began = quiet_logs.tell()
    async with serving(FakeEstimator(), max_deadline_ms=300, metrics_port=0) as service:
        chosen = service.addresses.metrics_port if port == "operator" else None
        async with connected(service, chosen) as (reader, writer):
            head = f"{asked} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            writer.write(head.encode() + b"Content-Length: 99999\r\n\r\n")
            told = b""
            while piece := await drop_after(writer, reader):
                told += piece
            assert told.startswith(b"HTTP/1.1 ")
            if asked in DRIPS[:3] and port == "callers":
                assert b"deadline_exceeded" in told
    assert '"error"' not in quiet_logs.getvalue()[began:]


async def drop_after(writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> bytes:
    """What comes while a body drips, empty at the end."""
    while True:
        try:
            writer.write(b" ")
            async with asyncio.timeout(0.02):
                return await reader.read(2**16)
        except TimeoutError:
            continue
        except ConnectionError:
            return b""


async def test_a_client_that_leaves_is_no_fault_of_ours(quiet_logs: io.StringIO) -> None:
    began = quiet_logs.tell()
    async with serving(FakeEstimator()) as service:
        with structlog.testing.capture_logs() as lines:
            for path in ("/pose", "/pose/overlay", "/cameras", "/nothing"):
                async with connected(service) as (_, writer):
                    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    writer.write(head.encode() + b"Content-Length: 99\r\n\r\n{")
                    await writer.drain()
                    seen = len(lines)
                    writer.transport.abort()
                    while path != "/nothing" and len(lines) == seen:
                        await asyncio.sleep(0.01)
        outcomes = [line["outcome"] for line in lines if line["event"] == "call"]
        assert outcomes[:3] == ["client_gone"] * 3
    assert '"error"' not in quiet_logs.getvalue()[began:]


def test_who_leaves_with_several_requests_in_flight_is_no_fault_of_ours() -> None:
    """On the event loop of `sdpose serve`, whose closed connections raise when they are written."""
    ask = b"POST /pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
    with tempfile.TemporaryFile() as log:
        ports = free_port(), free_port()
        with a_process(*ports, stderr=log.fileno(), SLOW_S="0.3") as running:
            for _ in range(3):
                client = socket.create_connection(("127.0.0.1", ports[0]))
                client.sendall((ask % len(PNG) + PNG) * 2)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
                client.close()
            with RestPoseClient(f"http://127.0.0.1:{ports[0]}") as other:
                other.estimate(PNG)  # what came before has been answered too
            running.terminate()
            assert running.wait(100) == 0
        log.seek(0)
        assert b"Traceback" not in log.read()


@pytest.mark.parametrize("asked", [b"/openapi.json", b"/metrics", b"/nothing"])
async def test_who_does_not_read_is_ended(asked: bytes) -> None:
    async with serving(FakeEstimator(), max_deadline_ms=300) as service:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", service.addresses.http_port))
            client.setblocking(False)
            ended = select.poll()
            ended.register(client, select.POLLHUP | select.POLLERR)
            async with asyncio.timeout(100):
                while not ended.poll(0):
                    with suppress(BlockingIOError, ConnectionError):
                        client.send(b"GET " + asked + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                    await asyncio.sleep(0.001)


async def test_connections_are_bounded_for_each_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for twenty: one caller has sixteen, and loses the one that waited for it the longest."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    fake = FakeEstimator()
    async with serving(fake) as service, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected(service)) for _ in range(16)]
        for _, writer in slow:
            writer.write(ASK)
        for _ in range(3):
            async with connected(service) as (reader, writer):
                writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        with suppress(ConnectionError):
            assert await slow[0][0].read() == b""
        fake.gate.clear()
        for _ in range(16):
            _, writer = await stack.enter_async_context(connected(service))
            writer.write(ASK + chunked(PNG, 64) + b"0\r\n\r\n")
        await wait_until(lambda: service.runtime.in_flight >= 16)
        async with connected(service) as (reader, _):
            assert (await reader.readline()).startswith(b"HTTP/1.1 429 "), "all of them wait for us"
        line = 'sdpose_shed_total{reason="too_many_connections"} 1.0'
        assert line in service.runtime.metrics.exposition().decode()
        fake.gate.set()


def test_connections_that_work_are_not_dropped() -> None:
    connections, dropped = Connections(1.0), list[int]()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(files, 4096)
    held = 0
    while connections.add(held, "10.0.0.1"):
        held += 1
    assert 0.79 * most < held < 0.81 * most, "four fifths"
    connections.waits(7, lambda: dropped.append(7))
    connections.waits(3, lambda: dropped.append(3))
    connections.works(7)
    connections.waits(7, lambda: dropped.append(7))
    assert connections.add("a", "10.0.0.1")
    assert dropped == [3]
    assert connections.add("b", "10.0.0.2"), "another caller finds room"
    for each in [*range(held), "a", "b"]:
        connections.remove(each)
    assert len(connections) == 0
    assert not connections._room._held
    assert not connections._waiting


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2000,
        b"POST /pose?" + b"&a" * 64 + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        WS.replace(b"Sec-WebSocket-Key", b"X-Key"),
        WS.replace(b"Host: x", b"Host: x\r\nX-Long: " + b"a" * 9000),
        WS.replace(b"/stream", b"/stream/\xc3\xa9"),
        WS.replace(b"/stream", b"/stream?" + b"&a" * 64),
    ],
    ids=["headers", "pipelined", "query", "no key", "long header", "path", "query of a stream"],
)
async def test_a_head_is_counted_and_no_head_is_a_fault(
    service: Service, quiet_logs: io.StringIO, sent: bytes
) -> None:
    began = quiet_logs.tell()
    async with connected(service) as (reader, writer):
        writer.write(sent)
        told = await reader.read(2**12)
        while b"HTTP/1.1 4" not in told and (more := await reader.read(2**12)):
            told += more
        assert b"HTTP/1.1 4" in told
    assert '"error"' not in quiet_logs.getvalue()[began:]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),  # no UTF-8
        (b"\x83\x80\0\0\0\0", 1002),  # no opcode
        (b"\x01\x81\0\0\0\0{" + b"\x00\x81\0\0\0\0a" * 20_000 + b"\x80\x80\0\0\0\0", 1008),
        (b"\x89\x80\0\0\0\0" * 20_000 + b"\x82\x81\0\0\0\0a" + b"\x88\x80\0\0\0\0", 1005),
    ],
    ids=["no text", "no opcode", "fragments", "pings"],
)
async def test_frames_of_a_web_socket(
    service: Service, quiet_logs: io.StringIO, frames: bytes, code: int
) -> None:
    began = quiet_logs.tell()
    async with connected(service) as (reader, writer):
        writer.write(WS)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frames)
        told = await reader.read()
    close = told[told.rindex(b"\x88") :]
    assert int.from_bytes(close[2:4]) == code or (code == 1005 and close[1] == 0)
    assert '"error"' not in quiet_logs.getvalue()[began:]
