"""What requests leave behind in a running service: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import pytest

from service.client import AsyncGrpcPoseClient, AsyncRestPoseClient
from service.errors import ServiceError
from tests.fakes import FakeEstimator, marked_image
from tests.pictures import encoded
from tests.service.conftest import Service, serving

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="counts the open files in /proc"),
]

PNG = encoded(marked_image(0x010203), "PNG")
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
    """The tasks once nothing is under way; waits for them to fall to so many, at most 5 s."""
    for _ in range(500):
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
