"""What `make deploy-check` asks and expects of the service, over a fake estimator."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.fakes import FakeEstimator, marked_image
from tests.pictures import encoded
from tests.service.conftest import Service, serving
from tools.deploy_check import _FEW_REQUESTS
from tools.deployment.load import RestLoad, grpc_people, stream_frames, websocket_frames

pytestmark = pytest.mark.anyio
_IMAGE = encoded(marked_image(7), "PNG")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def _over_grpc(target: str) -> tuple[int, int]:
    with grpc.insecure_channel(target) as channel:
        return grpc_people(channel, _IMAGE), stream_frames(channel, _IMAGE, frames=3, pause_s=0.05)


async def test_callers_of_every_kind_are_answered() -> None:
    async with serving(FakeEstimator(people=2)) as service:
        people, frames = await asyncio.to_thread(_over_grpc, service.target)
        assert people == 2
        assert frames > 0
        answered = await asyncio.to_thread(
            websocket_frames,
            f"{service.url.replace('http', 'ws')}/pose/stream",
            _IMAGE,
            3,
            origin=service.url,
        )
        assert answered == 3


async def _until_shed(service: Service) -> None:
    async with asyncio.timeout(20):
        while 'sdpose_shed_total{reason="too_many_requests"}' not in (
            service.runtime.metrics.exposition().decode()
        ):
            await asyncio.sleep(0.01)


async def test_few_requests_refuse_a_handful_of_callers() -> None:
    fake = FakeEstimator()
    fake.gate.clear()
    small = {name.removeprefix("SDPOSE_").lower(): int(n) for name, n in _FEW_REQUESTS.items()}
    async with serving(fake, **small) as service:
        load = RestLoad(f"{service.url}/pose", _IMAGE, callers=6)
        await asyncio.to_thread(load.__enter__)
        try:
            await _until_shed(service)
        finally:
            fake.gate.set()
            await asyncio.to_thread(load.__exit__, None, None, None)
    assert set(load.outcomes) == {200, 429}
