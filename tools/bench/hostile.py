"""Effect of one hostile client on `/livez` and on other callers: `python -m tools.bench hostile`.

Each client of the table runs in a separate process from 127.0.0.1, as fast as it is answered;
the probe of `/livez` and a caller with images come from 127.0.0.2. A measurement with it is
between two without, which count together.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import grpc
import typer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from service.bench.server import Server, started
from service.bench.tables import machine, markdown, percentile
from service.cli.bench_shared import progress_line, read_images

_MOST_LIVEZ_S = 0.2
_MOST_TIMES = 2.0
_OTHERS = ("127.0.0.2", 0)
_PAUSE_S = 0.05


@dataclass(slots=True)
class Seen:
    """Seconds of each `/livez` and each image of another caller, and what failed of them."""

    livez: list[float] = field(default_factory=list)
    images: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Harm:
    """One hostile client: what was seen beside it, and without it."""

    name: str
    during: Seen
    without: Seen

    @property
    def times(self) -> float:
        """The p99 of another caller's images, of that without."""
        return percentile(self.during.images, 0.99) / percentile(self.without.images, 0.99)

    @property
    def held(self) -> bool:
        """Whether the service went on for others."""
        livez = percentile(self.during.livez, 0.99) < _MOST_LIVEZ_S
        return livez and self.times <= _MOST_TIMES and not self.during.failed


def _members() -> bytes:
    return b",".join(b'"%07d":1' % number for number in range(350_000))


async def _http(host: str, port: int, kind: str, body: bytes) -> None:
    head = f"POST /pose HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nConnection: close\r\n"
    await _raw(host, port, head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


async def _socket(host: str, port: int, message: str) -> None:
    async with connect(f"ws://{host}:{port}/pose/stream", max_size=None) as stream:
        await stream.send(message)
        await stream.recv()


async def _frames(host: str, port: int, frames: bytes) -> None:
    """Frames of a WebSocket as they come on the wire."""
    await _raw(
        host,
        port,
        b"GET /pose/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        + frames,
    )


async def _raw(host: str, port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(sent)
    await reader.read()
    writer.close()


async def _message(host: str, port: int, message: bytes) -> None:
    async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
        await channel.unary_unary("/sdpose.v1.PoseService/EstimatePose", None, None)(message)


async def _held_open(host: str, port: int, request: bytes, more: bytes) -> None:
    """300 connections on which a body drips, or answers are not read; each is opened again."""

    async def one() -> None:
        while True:
            _, writer = await asyncio.open_connection(host, port, limit=1)
            writer.write(request)
            while not writer.transport.is_closing():
                await asyncio.sleep(1)
                writer.write(more)

    await asyncio.gather(*(_forever(one) for _ in range(300)))


async def _forever(act: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await act()
        except (OSError, ConnectionClosed, grpc.aio.AioRpcError):
            await asyncio.sleep(0.01)


_HEAD = b"POST /cameras HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_SLOW = _HEAD + b"Content-Length: 99999\r\n\r\n"
_UNREAD = b"GET /source HTTP/1.1\r\nHost: x\r\n\r\n"
_FORM = (
    b"--e\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n-\r\n"
    b'--e\r\nContent-Disposition: form-data; name="boxes"\r\n\r\n'
)
_MULTIPART, _JSON = "multipart/form-data; boundary=e", "application/json"
_BOXES = b"\x1a\x80\xa4\xe8\x03"  # of gRPC: a field of 8,000,000 bytes

_Act = Callable[[], Awaitable[None]]
CLIENTS: dict[str, Callable[[str, int, int], _Act]] = {
    "JSON with 350,000 members": lambda host, http, _: partial(
        _http, host, http, _JSON, b'{"image":"eA==",' + _members() + b"}"
    ),
    "JSON with 60 MiB of base64": lambda host, http, _: partial(
        _http, host, http, _JSON, b'{"image":"' + b"A" * (60 << 20) + b'"}'
    ),
    "JSON with 60 MiB of escapes": lambda host, http, _: partial(
        _http, host, http, _JSON, b'{"image":"' + b"\\n" * (30 << 20) + b'"}'
    ),
    "form with a MiB of boxes": lambda host, http, _: partial(
        _http, host, http, _MULTIPART, _FORM + b"[[1]," * 200_000 + b"\r\n--e--\r\n"
    ),
    "WebSocket config of 350,000 members": lambda host, http, _: partial(
        _socket, host, http, '{"config":{' + _members().decode() + "}}"
    ),
    "WebSocket message in 300,000 fragments": lambda host, http, _: partial(
        _frames,
        host,
        http,
        b"\x01\x81\0\0\0\0{" + b"\x00\x81\0\0\0\0a" * 300_000 + b"\x80\x80\0\0\0\0",
    ),
    "300,000 pings": lambda host, http, _: partial(
        _frames, host, http, b"\x89\x80\0\0\0\0" * 300_000 + b"\x88\x80\0\0\0\0"
    ),
    "gRPC message of 4,000,000 boxes": lambda host, _, rpc: partial(
        _message, host, rpc, _BOXES + b"\x0a\x00" * 4_000_000
    ),
    "7,000 requests at once": lambda host, http, _: partial(_raw, host, http, _UNREAD * 7000),
    "300 bodies that drip": lambda host, http, _: partial(_held_open, host, http, _SLOW, b" "),
    "300 who do not read": lambda host, http, _: partial(_held_open, host, http, _UNREAD * 8, b""),
}


async def _watch(server: Server, images: Sequence[bytes], seconds: float) -> Seen:
    seen, end = Seen(), time.monotonic() + seconds
    await asyncio.gather(
        _ask(server, itertools.repeat(b""), seen.livez, seen.failed, end),
        _ask(server, itertools.cycle(images), seen.images, seen.failed, end),
    )
    return seen


async def _ask(
    server: Server, bodies: itertools.repeat[bytes] | itertools.cycle[bytes],
    took: list[float], failed: list[str], end: float,
) -> None:  # fmt: skip
    for body in bodies:
        if time.monotonic() > end:
            return
        line = "POST /pose" if body else "GET /livez"
        head = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nConnection: close\r\n"
        began = time.monotonic()
        try:
            async with asyncio.timeout(30):
                reader, writer = await asyncio.open_connection(
                    server.host, server.http_port, local_addr=_OTHERS
                )
                writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
                status = (await reader.read()).split(b"\r\n")[0].decode()
                writer.close()
        except (OSError, TimeoutError) as error:
            status = repr(error)
        took.append(time.monotonic() - began)
        if " 200 " not in status:
            failed.append(f"{line}: {status}")
        await asyncio.sleep(_PAUSE_S)


def measure(server: Server, images: Sequence[bytes], seconds: float, name: str) -> Harm:
    """One hostile client for so many seconds."""
    before = asyncio.run(_watch(server, images, seconds / 2))
    where = (server.host, server.http_port, server.grpc_port)
    program = f"from tools.bench.hostile import act; act{(name, *where)!r}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()  # it has made what it sends
        try:
            during = asyncio.run(_watch(server, images, seconds))
        finally:
            client.kill()
    after = asyncio.run(_watch(server, images, seconds / 2))
    return Harm(name, during, Seen(before.livez + after.livez, before.images + after.images))


def act(name: str, host: str, http_port: int, grpc_port: int) -> None:
    """Be this client without end, in a separate process; a line on stdout marks its beginning."""
    attack = CLIENTS[name](host, http_port, grpc_port)
    print("ready", flush=True)
    asyncio.run(_forever(attack))


def table(harms: Sequence[Harm]) -> str:
    """In Markdown; milliseconds."""
    rows = []
    for harm in harms:
        pair = (harm.without, harm.during)
        numbers = [
            *(percentile(each.livez, 0.99) for each in pair),
            max(harm.during.livez),
            *(percentile(each.images, share) for share in (0.5, 0.99) for each in pair),
        ]
        times = f"{harm.times:.2f}"
        words = [times, str(len(harm.during.failed)), "yes" if harm.held else "NO"]
        rows.append([harm.name, *(f"{each * 1e3:.0f}" for each in numbers), *words])
    head = ["client", "/livez p99 without", "with", "most", "image p50 without", "with"]
    return markdown([*head, "p99 without", "with", "times", "failed", "held"], rows)


def main(
    seconds: Annotated[float, typer.Option(help="Of each client.")] = 20.0,
    client: Annotated[list[str] | None, typer.Option(help="This one alone; repeatable.")] = None,
) -> None:
    """Effect of one hostile client on others; status 1 if something did not hold."""
    unknown = set(client or ()) - set(CLIENTS)
    if unknown:
        raise ValueError(f"--client {', '.join(unknown)}: expected one of {', '.join(CLIENTS)}")
    harms = []
    with started({}) as server:
        images = read_images(None, small=True)
        for name in client or CLIENTS:
            harms.append(measure(server, images, seconds, name))
            progress_line(table(harms[-1:]).splitlines()[-1])
    typer.echo(f"{machine()}\n\n{table(harms)}")
    raise typer.Exit(0 if all(harm.held for harm in harms) else 1)
