"""Bodies of HTTP requests: how they come, break off, and how much of them is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.errors import ErrorCode
from tests.fakes import PNG, FakeEstimator
from tests.pictures import png_bomb
from tests.service.conftest import (
    Service,
    in_the_model,
    rejected,
    serving,
    until_metrics_have,
    wait_until,
)
from tests.service.processes import process
from tests.service.rest_checks import assert_problem, outcome_of_the_only_request

pytestmark = pytest.mark.anyio

RAW = {"Content-Type": "image/png"}
PADDED = PNG + bytes(700_000)
"""A picture of two thirds of a MiB: two of them do not fit into one."""


async def half_a_request(service: Service) -> asyncio.StreamWriter:
    """A connection on which the body was begun and does not go on."""
    port = int(service.url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        b"Content-Length: 1000\r\n\r\n" + PNG[:20]
    )
    await writer.drain()
    await wait_until(lambda: service.runtime.in_flight)
    return writer


async def test_a_body_without_announced_length_is_bounded() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(2**16)

    async with serving(FakeEstimator(), max_image_mb=1) as service:
        response = await service.http.post("/pose", content=chunks(), headers=RAW)
        assert_problem(response, 413, "payload_too_large")


async def test_body_that_does_not_arrive(fake: FakeEstimator) -> None:
    async with serving(fake, max_deadline_ms=100) as service:
        writer = await half_a_request(service)
        assert 'outcome="deadline_exceeded"' in await outcome_of_the_only_request(service)
        writer.close()
        await writer.wait_closed()


async def test_bodies_in_memory_are_bounded(fake: FakeEstimator) -> None:
    async with serving(fake, max_memory_mb=3, max_image_mb=1) as service:

        async def in_pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(PADDED), 2**16):
                yield PADDED[start : start + 2**16]

        first = await in_the_model(fake, service.http.post("/pose", content=PADDED, headers=RAW))
        for content in (PADDED, in_pieces()):  # with its length announced, and without
            refused = await service.http.post("/pose", content=content, headers=RAW)
            assert_problem(refused, 429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        form = await service.http.post("/pose", files={"image": ("a", PADDED)})
        assert_problem(form, 429, "overloaded")
        small = asyncio.create_task(service.http.post("/pose", content=PNG, headers=RAW))
        fake.gate.set()
        assert (await first).status_code == 200
        assert (await small).status_code == 200
        assert (await service.http.post("/pose", content=PADDED, headers=RAW)).status_code == 200
        assert service.runtime.bodies.used == 0
        await until_metrics_have(service, 'sdpose_shed_total{reason="memory"} 3.0')


async def test_a_request_alone_always_fits(fake: FakeEstimator) -> None:
    async with serving(fake, max_memory_mb=3, max_image_mb=4) as service:
        large = PNG + bytes(3_000_000)
        for _ in range(2):
            assert (
                await service.http.post("/pose", files={"image": ("a", large)})
            ).status_code == 200


def test_a_bomb_takes_no_memory() -> None:
    """Decoded it would be 2.7 GB; the process never grows by a hundredth of that."""

    def most_mib(pid: int) -> float:
        told = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        return int(told.split("VmHWM:")[1].split()[0]) / 1024

    with process() as (running, client):
        client.estimate(PNG)
        before = most_mib(running.pid)
        with rejected(ErrorCode.PAYLOAD_TOO_LARGE):
            client.estimate(png_bomb())
        assert most_mib(running.pid) - before < 27
