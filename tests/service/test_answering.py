"""`sdpose stream --server`: frames of a recording or a camera, answered by a service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from sdpose_client import Ask, GrpcPoseClient, StreamAsk
from sdpose_core.io.live import TimedImage
from sdpose_core.types import Poses
from service.cli.answering import RemoteAnswering
from tests.fakes import FakeEstimator
from tests.service.conftest import Service, serving

pytestmark = pytest.mark.anyio


def frames(count: int) -> Iterator[TimedImage]:
    for number in range(count):
        image = np.full((64, 48, 3), 40 + number, np.uint8)
        yield TimedImage(number, number / 10, time.monotonic(), image, dropped=number % 2)


def answered(
    service: Service, images: Iterable[TimedImage], asked: StreamAsk, told: list[str]
) -> list[tuple[TimedImage, Poses]]:
    with GrpcPoseClient(service.target) as client:
        answering = RemoteAnswering(client, Ask(max_people=2), asked, told.append)
        return list(answering(images))


async def test_every_frame_of_a_recording_comes_back_with_its_people() -> None:
    async with serving(FakeEstimator(people=3)) as service:
        told: list[str] = []
        done = await asyncio.to_thread(answered, service, frames(10), StreamAsk(drop="none"), told)
    assert told == []
    assert [frame.number for frame, _ in done] == list(range(10))
    assert [frame.dropped for frame, _ in done] == [0, 1] * 5
    assert [len(poses) for _, poses in done] == [2] * 10
    ids = done[-1][1].ids
    assert ids is not None
    assert ids.tolist()[0] == 1
    assert done[0][0].image.shape == (64, 48, 3)
    visibility = done[-1][1].visibility
    assert visibility is not None
    np.testing.assert_allclose(visibility[1], np.linspace(1, 0.6, 17), atol=1e-3)


async def test_frames_that_the_service_left_out_are_counted() -> None:
    fake = FakeEstimator()
    fake.gate.clear()

    def all_before_the_first_answer() -> Iterator[TimedImage]:
        yield from frames(30)
        fake.gate.set()

    async with serving(fake) as service:
        told: list[str] = []
        done = await asyncio.to_thread(
            answered, service, all_before_the_first_answer(), StreamAsk(), told
        )
    assert len(done) < 30
    offered = sum(number % 2 for number in range(30))
    assert sum(1 + frame.dropped for frame, _ in done) == 30 + offered


async def test_a_frame_that_fails_is_told_and_the_stream_goes_on() -> None:
    async with serving(FakeEstimator(), max_image_mb=0.0005) as service:
        told: list[str] = []
        done = await asyncio.to_thread(answered, service, frames(3), StreamAsk(drop="none"), told)
    assert done == []
    assert [line.split(":")[0] for line in told] == ["frame 0", "frame 1", "frame 2"]
