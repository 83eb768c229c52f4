"""A long run as in life: images over both front ends, cameras, and callers that misbehave."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import linear_regression
from typing import Annotated, TypeVar

import grpc
import httpx
import typer

from sdpose_client import AsyncGrpcPoseClient, ErrorCode, PoseAnswer, ServiceError
from service.bench.load import RestConnection, RpcConnection
from service.bench.server import Server, started
from service.bench.streams import panned
from service.bench.tables import machine, markdown, percentile
from service.cli.bench_shared import Images, progress_line, read_images

Progress = Callable[[str], None]
T = TypeVar("T")
_METHOD = "/sdpose.v1.PoseService/EstimatePose"
_FPS = 5.0
_FAULT_EVERY_S = 0.5
_LONGEST_S = 60.0
_PAUSE_S = 0.02
_REFUSED = {ErrorCode.OVERLOADED.value, "429"}
_ROWS = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """The service at one moment; `seconds` since the start, latencies of what came since before."""

    seconds: float
    requests: int
    memory_mib: float
    files: int
    threads: int
    tasks: int
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Soak:
    """Results of a run: samples, answers by outcome, and what was lost."""

    samples: list[Sample] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """All that were sent, frames too."""
        return self.outcomes.total() + self.faults.total()

    def settled(self) -> list[Sample]:
        """The samples of the last two thirds: before, each new batch size takes memory once."""
        return self.samples[len(self.samples) // 3 :]

    def rise_mib(self) -> float:
        """Memory of 1,000 requests, once settled; not a number where too little was seen."""
        settled = self.settled()
        if len({each.requests for each in settled}) < 2:
            return float("nan")
        seen = [each.requests for each in settled]
        return 1000 * linear_regression(seen, [each.memory_mib for each in settled]).slope

    def drift(self) -> float:
        """The median latency of the last fifth, of that of the first fifth that is settled."""
        settled = self.settled()
        fifth = max(1, len(settled) // 5)
        first, last = settled[:fifth], settled[-fifth:]
        before = sum(each.p50_ms for each in first)
        return sum(each.p50_ms for each in last) / before if before else float("nan")

    def report(self) -> str:
        """Tables and the sentence below them; in Markdown."""
        step = max(1, len(self.samples) // _ROWS)
        rows = [
            [
                f"{each.seconds / 60:.1f}",
                str(each.requests),
                f"{each.memory_mib:.0f}",
                *(str(count) for count in (each.files, each.threads, each.tasks)),
                f"{each.p50_ms:.0f}",
                f"{each.p99_ms:.0f}",
            ]
            for each in self.samples[::step]
        ]
        head = ["minutes", "requests", "resident MiB", "open files", "threads", "tasks", "p50 ms"]
        answers = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        lines = [
            markdown([*head, "p99 ms"], rows),
            "",
            f"Answers: {answers}. Misbehaviour: {faults}.",
            f"Memory once settled: {self.rise_mib():+.3f} MiB a 1,000 requests. "
            f"Latency of the last fifth: {self.drift():.2f} of the first. "
            f"Answers lost: {len(self.lost)}.",
        ]
        return "\n".join([*lines, *dict.fromkeys(self.lost[:10])])


def run_soak(
    server: Server,
    images: Sequence[bytes],
    frames: Sequence[bytes],
    seconds: float,
    progress: Progress,
    *,
    clients: int = 2,
    cameras: int = 2,
    every_s: float = 10.0,
) -> Soak:
    """So many clients of each front end and cameras, with misbehaviour sprinkled in.

    Args:
        images: files that the clients send in turn.
        frames: files that each camera shows in turn.
        every_s: between two samples.
    """
    return asyncio.run(
        _Callers(server, images, frames).run(seconds, clients, cameras, every_s, progress)
    )


class _Callers:
    def __init__(self, server: Server, images: Sequence[bytes], frames: Sequence[bytes]) -> None:
        self._server = server
        self._images = itertools.cycle(images)
        self._frames = frames
        self._soak = Soak()
        self._latencies: list[float] = []
        self._end = 0.0
        self._dice = random.Random(1)  # noqa: S311 - which caller misbehaves how

    async def run(
        self, seconds: float, clients: int, cameras: int, every_s: float, progress: Progress
    ) -> Soak:
        began = time.monotonic()
        self._end = began + seconds
        callers: list[Awaitable[None]] = []
        for _ in range(clients):
            callers += [self._client(RestConnection, self._server.http_port)]
            callers += [self._client(RpcConnection, self._server.grpc_port)]
        callers += [self._camera() for _ in range(cameras)]
        watching = asyncio.create_task(self._watch(began, every_s, progress))
        await asyncio.gather(*callers, self._misbehave())
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        return self._soak

    async def _client(
        self, connect: Callable[[str, int], RestConnection | RpcConnection], port: int
    ) -> None:
        while time.monotonic() < self._end:
            try:
                async with connect(self._server.host, port) as connection:
                    while time.monotonic() < self._end:
                        await self._one(connection)
                        await asyncio.sleep(_PAUSE_S)
            except (OSError, TimeoutError, EOFError) as error:
                self._soak.lost.append(f"no answer: {error!r}")
                await asyncio.sleep(_FAULT_EVERY_S)

    async def _one(self, connection: RestConnection | RpcConnection) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(_LONGEST_S):
                await connection.ask(next(self._images))
        except ServiceError as error:
            self._rejected(error.code.value, error.message)
        except RuntimeError as error:  # of `RestConnection`: another status than 200
            self._rejected("429" if "too many" in str(error) else "other", str(error))
        else:
            self._soak.outcomes["ok"] += 1
            self._latencies.append(time.monotonic() - began)

    def _rejected(self, code: str, message: str) -> None:
        if code in _REFUSED:
            self._soak.outcomes["rejected"] += 1
        else:
            self._soak.lost.append(f"{code}: {message}")

    async def _camera(self) -> None:
        """A camera that comes and goes."""
        while time.monotonic() < self._end:
            sent = answered = dropped = 0

            async def frames() -> AsyncIterator[bytes]:
                nonlocal sent
                for frame in itertools.islice(itertools.cycle(self._frames), 100):
                    if time.monotonic() > self._end:
                        return
                    sent += 1
                    yield frame
                    await asyncio.sleep(1 / _FPS)

            async with AsyncGrpcPoseClient(
                f"{self._server.host}:{self._server.grpc_port}"
            ) as client:
                try:
                    async for answer in client.stream(frames()):
                        answered += 1
                        dropped += answer.dropped
                        good = isinstance(answer.outcome, PoseAnswer)
                        self._soak.outcomes["frame ok" if good else "frame rejected"] += 1
                except ServiceError as error:
                    self._rejected(error.code.value, error.message)
                    continue
            self._soak.outcomes["frame dropped"] += dropped
            if answered + dropped != sent:
                found = f"{sent} frames sent, {answered} answered, {dropped} dropped"
                self._soak.lost.append(found)

    async def _misbehave(self) -> None:
        ways = (
            self._no_image,
            self._breaks_off,
            self._no_message,
            self._half_open,
            self._gives_up,
            self._impatient,
            self._wrong_stream,
        )
        open_for_long: list[asyncio.StreamWriter] = []
        while time.monotonic() < self._end:
            way = self._dice.choice(ways)
            try:
                async with asyncio.timeout(_LONGEST_S):
                    writer = await way()
            except (OSError, TimeoutError, EOFError) as error:
                self._soak.lost.append(f"{way.__name__}: {error!r}")
                writer = None
            if writer is not None:
                open_for_long.append(writer)
            while len(open_for_long) > 10:
                open_for_long.pop(0).transport.abort()
            self._soak.faults[way.__name__.strip("_").replace("_", " ")] += 1
            await asyncio.sleep(_FAULT_EVERY_S)
        for writer in open_for_long:
            writer.transport.abort()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._server.host, self._server.http_port)

    async def _no_image(self) -> None:
        async with RestConnection(self._server.host, self._server.http_port) as connection:
            status, _, _ = await connection.exchange(self._dice.randbytes(1000))
        self._expect(status, 415)

    async def _breaks_off(self) -> None:
        _, writer = await self._connected()
        image = next(self._images)
        head = "POST /pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        head += f"Content-Length: {len(image)}\r\n\r\n"
        writer.write(head.encode() + image[: len(image) // 2])
        await writer.drain()
        writer.transport.abort()

    async def _no_message(self) -> None:
        target = f"{self._server.host}:{self._server.grpc_port}"
        async with grpc.aio.insecure_channel(target) as channel:
            call = channel.unary_unary(_METHOD, None, None)
            try:
                await call(self._dice.randbytes(200), timeout=_LONGEST_S)
            except grpc.aio.AioRpcError as error:
                self._expect(error.code(), grpc.StatusCode.INVALID_ARGUMENT)

    async def _half_open(self) -> asyncio.StreamWriter:
        _, writer = await self._connected()
        writer.write(b"POST /pose HTTP/1.1\r\nHost: x\r\n")
        return writer

    async def _gives_up(self) -> None:
        """Goes away while its image is looked at."""
        async with RpcConnection(self._server.host, self._server.grpc_port) as connection:
            asking = asyncio.ensure_future(connection.ask(next(self._images)))
            await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _impatient(self) -> None:
        async with RestConnection(self._server.host, self._server.http_port) as connection:
            status, _, _ = await connection.exchange(next(self._images), "?deadline_ms=1")
        self._expect(status, 429, 504)

    async def _wrong_stream(self) -> None:
        """A stream that ends by its second frame, whose number goes back."""
        target = f"{self._server.host}:{self._server.grpc_port}"
        async with AsyncGrpcPoseClient(target) as client:

            async def frames() -> AsyncIterator[bytes]:
                yield b"no image"
                raise _GaveUpError

            with suppress(_GaveUpError, ServiceError):
                async for _ in client.stream(frames()):
                    pass

    def _expect(self, found: T, *expected: T) -> None:
        if found not in expected:
            self._soak.lost.append(f"answered with {found}, expected {expected}")

    async def _watch(self, began: float, every_s: float, progress: Progress) -> None:
        url = f"http://{self._server.host}:{self._server.http_port}/metrics"
        async with httpx.AsyncClient() as http:
            while True:
                await asyncio.sleep(every_s)
                latencies, self._latencies = self._latencies or [0.0], []
                try:
                    text = (await http.get(url, timeout=_LONGEST_S)).text
                except httpx.HTTPError as error:
                    self._soak.lost.append(f"no metrics: {error!r}")
                    return
                tasks = re.search(r"^sdpose_tasks (\S+)$", text, re.MULTILINE)
                sample = Sample(
                    time.monotonic() - began,
                    self._soak.requests,
                    self._server.memory_mib(),
                    self._server.open_files(),
                    self._server.threads(),
                    int(float(tasks[1])) if tasks else 0,
                    percentile(latencies, 0.5) * 1e3,
                    percentile(latencies, 0.99) * 1e3,
                )
                self._soak.samples.append(sample)
                progress(
                    f"{sample.seconds / 60:.1f} min, {sample.requests} requests: "
                    f"{sample.memory_mib:.0f} MiB, {len(self._soak.lost)} lost"
                )


class _GaveUpError(Exception):
    """A caller's own trouble in the middle of its stream."""


def main(
    images: Images = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the run.")] = 20.0,
    clients: Annotated[int, typer.Option(min=1, help="Clients of each front end.")] = 2,
    cameras: Annotated[int, typer.Option(min=0, help="Cameras of 5 frames per second.")] = 2,
    large: Annotated[bool, typer.Option(help="Whole images, not their people.")] = False,
) -> None:
    """A long run: images over both front ends, cameras, and callers that misbehave.

    Memory, files, threads and tasks of the service, its latency, and every answer that was lost
    (status 1 then).
    """
    typer.echo(f"{machine()}\n")
    files = read_images(images, small=not large)
    with started({}) as server:
        seen = run_soak(
            server,
            files,
            panned(files[0]),
            minutes * 60,
            progress_line,
            clients=clients,
            cameras=cameras,
            every_s=min(10.0, minutes * 6),
        )
    typer.echo(seen.report())
    raise typer.Exit(1 if seen.lost else 0)
