"""What requests leave behind in a running service: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdpose_client import AsyncGrpcPoseClient, AsyncRestPoseClient
from service.errors import ServiceError
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import Service, serving, wait_until
from tests.service.processes import resident
from tests.service.stream_clients import over_grpc, over_websocket

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="counts the open files in /proc"),
]

_FILES = Path("/proc/self/fd")


async def _round(service: Service) -> None:
    """Good, bad, late and abandoned requests on both front ends."""
    fronts: tuple[AsyncRestPoseClient | AsyncGrpcPoseClient, ...] = (service.rest, service.grpc)
    for front in fronts:
        await front.estimate(PNG)
        with contextlib.suppress(ServiceError):
            await front.estimate(b"no image")
        with contextlib.suppress(ServiceError):
            await front.estimate(PNG, timeout_s=0.001)
        gone = asyncio.create_task(front.estimate(PNG))
        await asyncio.sleep(0.001)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


async def _settled(service: Service, tasks: int) -> int:
    """The tasks once nothing is under way; waits for them to fall to so many, a minute at most."""
    for _ in range(6000):
        if not service.runtime.in_flight and len(asyncio.all_tasks()) <= tasks:
            break
        await asyncio.sleep(0.01)
    return len(asyncio.all_tasks())


async def test_requests_leave_no_task_and_no_file_open() -> None:
    async with serving(FakeEstimator(delay_s=0.002)) as service:
        for _ in range(3):  # the connections of the clients, and what is made once
            await _round(service)
        await asyncio.sleep(0.2)
        tasks, files = len(asyncio.all_tasks()), len(os.listdir(_FILES))
        for _ in range(40):
            await _round(service)
        assert await _settled(service, tasks) <= tasks
        # An abandoned REST request costs its connection, which is opened anew: give or take one.
        assert len(os.listdir(_FILES)) <= files + 2


async def _stream_round(service: Service, number: int) -> None:
    """One stream of each protocol; every third is left in the middle."""
    for over in (over_grpc, over_websocket):
        async with over(service) as stream:
            await stream.send(PNG)
            await stream.answer()
            if number % 3:
                await stream.finish()
            else:
                stream.leave()


async def test_streams_leave_nothing_after_500_connects() -> None:
    async with serving(FakeEstimator()) as service:
        for number in range(20):
            await _stream_round(service, number)
        await asyncio.sleep(0.2)
        tasks, files = len(asyncio.all_tasks()), len(os.listdir(_FILES))
        memory = resident(os.getpid())
        for number in range(250):
            await _stream_round(service, number)
        assert await _settled(service, tasks) <= tasks
        assert len(os.listdir(_FILES)) <= files + 2
        assert service.runtime.metrics.streams_active._value.get() == 0
        assert len(service.runtime.streams._resumable) <= service.runtime.settings.max_streams
        assert resident(os.getpid()) < memory + 30 * 2**20


async def test_32_streams_share_the_worker() -> None:
    fake = FakeEstimator(delay_s=0.002)
    async with serving(fake) as service:
        answered = [0] * 32
        over = asyncio.Event()

        async def camera(number: int) -> None:
            async def frames() -> AsyncIterator[bytes]:
                while not over.is_set():
                    yield PNG
                    await asyncio.sleep(0.01)

            async for _ in service.grpc.stream(frames()):
                answered[number] += 1

        cameras = [asyncio.create_task(camera(number)) for number in range(32)]
        await wait_until(lambda: min(answered) >= 1)
        answered[:] = [0] * 32  # from here on all are there
        await wait_until(lambda: sum(answered) >= 32 * 50)
        shares = sorted(answered)
        over.set()
        await asyncio.gather(*cameras)
    assert shares[0] >= 0.8 * sum(shares) / 32
