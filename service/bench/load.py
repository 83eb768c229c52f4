"""A closed-loop load: so many clients, each sends again when it has its answer."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from sdpose_client import AsyncGrpcPoseClient, Retry, ServiceError
from service.bench.tables import percentile

Ask = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True)
class Load:
    """Seconds of every answered request of one measurement, and how long it took in all."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    first_error: str = ""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def ms(self, share: float) -> float:
        """A percentile of the latency in milliseconds."""
        return percentile(self.latencies, share) * 1e3


class RestConnection:
    """One kept-alive HTTP connection that does just what the load needs.

    A full HTTP client takes nearly eight times its processor time, away from the service that is
    measured beside it (`docs/decisions/0006-load-generator.md`).
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def __aenter__(self) -> RestConnection:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, image: bytes, query: str = "") -> bytes:
        """One POST /pose; gives the body, raises RuntimeError unless the status is 200."""
        status, _, body = await self.exchange(image, query)
        if status != 200:
            raise RuntimeError(json.loads(body)["detail"])
        return body

    async def exchange(self, image: bytes, query: str = "") -> tuple[int, str, bytes]:
        """One POST /pose; gives status, head in lower case, and body."""
        head = (
            f"POST /pose{query} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: image/jpeg\r\n"
            f"Content-Length: {len(image)}\r\n\r\n"
        )
        self._writer.write(head.encode() + image)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        return int(head.split(" ", 2)[1]), head, await self._reader.readexactly(length)


class RpcConnection:
    """One gRPC channel of the typed client, which tries nothing again."""

    def __init__(self, host: str, port: int) -> None:
        self._target = f"{host}:{port}"

    async def __aenter__(self) -> RpcConnection:
        self._client = AsyncGrpcPoseClient(self._target, retry=Retry(attempts=1))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, image: bytes) -> None:
        """One EstimatePose; raises `ServiceError`."""
        await self._client.estimate(image)


async def closed_loop(
    connections: Sequence[RestConnection | RpcConnection],
    images: Sequence[bytes],
    *,
    seconds: float | None = None,
    requests: int | None = None,
) -> Load:
    """One client a connection, for so many seconds or requests in all."""
    load = Load()
    feed: Iterator[bytes] = itertools.cycle(images)
    left = itertools.count() if requests is None else iter(range(requests))
    started = time.perf_counter()
    end = None if seconds is None else started + seconds

    async def client(connection: RestConnection | RpcConnection) -> None:
        while end is None or time.perf_counter() < end:
            if next(left, None) is None:
                return
            image = next(feed)
            sent = time.perf_counter()
            try:
                await connection.ask(image)
            except (RuntimeError, ServiceError) as error:
                load.errors += 1
                load.first_error = load.first_error or str(error)
            else:
                load.latencies.append(time.perf_counter() - sent)

    async with AsyncExitStack() as stack:
        for connection in connections:
            await stack.enter_async_context(connection)
        started = time.perf_counter()
        end = None if seconds is None else started + seconds
        await asyncio.gather(*map(client, connections))
        load.seconds = time.perf_counter() - started
    return load
