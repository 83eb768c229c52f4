"""The pipeline over the fake estimator: bounds, and what it counts."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from sdpose_core.types import Floats, Image
from service.errors import ErrorCode, ServiceError
from service.parameters import PoseParameters, Priority
from service.pipeline.limits import PipelineLimits
from service.pipeline.pipeline import PosePipeline
from service.scheduling.batch_run import BatchLimits
from service.scheduling.owner_thread import OwnerThread
from service.scheduling.turns import Turn
from service.telemetry.metrics import Metrics
from tests.fakes import PNG, FakeCrops, FakeEstimator, mark_of, marked_image
from tests.pictures import encoded
from tests.service.conftest import rejected

pytestmark = pytest.mark.anyio

PEAK, KEPT = 8 * 8 * 8, 8 * 8 * 3  # its bytes while it is decoded, and afterwards
BOXES = np.array([[0, 0, 8, 8]], np.float32)


class Stand:
    """A pipeline with one thread for both models, as on a CPU."""

    def __init__(self, fake: FakeEstimator, limits: PipelineLimits) -> None:
        self.fake = fake
        self.metrics = Metrics()
        self.worker = OwnerThread("pose")
        self.pipeline = PosePipeline(
            fake,
            limits=limits,
            detect_worker=self.worker,
            pose_worker=self.worker,
            metrics=self.metrics,
        )

    def value(self, name: str, **labels: str) -> float:
        """One sample of the metrics page; 0 where it does not stand there."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def held(self) -> asyncio.Task[object]:
        """A request that stands in the detector, behind the gate."""
        self.fake.gate.clear()
        task: asyncio.Task[object] = asyncio.create_task(self.pipeline.estimate(PNG))
        await asyncio.to_thread(self.fake.entered.wait, 100)
        return task


@contextmanager
def stand(fake: FakeEstimator, **limits: object) -> Iterator[Stand]:
    made = Stand(fake, PipelineLimits(**limits))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        if isinstance(fake, FakeEstimator):
            fake.gate.set()
        made.pipeline.close()
        made.worker.stop(5)


async def until(stand: Stand, depth: int, stage: str) -> None:
    while stand.value("sdpose_queue_depth", stage=stage) != depth:
        await asyncio.sleep(0.002)


async def test_decoded_images_in_flight_are_bounded(fake: FakeEstimator) -> None:
    with stand(fake, max_decoded_bytes=KEPT + PEAK) as made:
        first = await made.held()
        second = asyncio.create_task(made.pipeline.estimate(PNG))
        await until(made, 1, "detect")
        with rejected(ErrorCode.OVERLOADED):
            await made.pipeline.estimate(PNG)
        assert made.value("sdpose_shed_total", reason="memory") == 1
        fake.gate.set()
        await asyncio.gather(first, second)
        del first, second
        gc.collect()
        await made.pipeline.estimate(PNG)  # their memory was given back


async def test_a_file_that_does_not_decode_takes_no_budget(fake: FakeEstimator) -> None:
    with stand(fake, max_decoded_bytes=PEAK) as made:
        for _ in range(3):
            with rejected(ErrorCode.INVALID_IMAGE):
                await made.pipeline.estimate(PNG[:-30])
        await made.pipeline.estimate(PNG)


async def test_every_stage_is_timed_and_every_queue_told(fake: FakeEstimator) -> None:
    with stand(fake) as made:
        result = await made.pipeline.estimate(PNG)
        assert {"decode", "detect", "crop", "pose", "keypoints", "queue", "total"} == set(
            result.timings_ms
        )
        for stage in ("decode", "detect", "crop", "pose", "keypoints"):
            assert made.value("sdpose_stage_seconds_count", stage=stage) == 1, stage
        for stage in ("decode", "detect", "crop", "pose"):
            assert made.value("sdpose_queue_wait_seconds_count", stage=stage) == 1, stage
            assert (
                made.metrics.registry.get_sample_value("sdpose_queue_depth", {"stage": stage}) == 0
            ), stage


async def test_what_decoding_refuses_and_drops_is_counted(
    fake: FakeEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand(fake, decode_threads=1, max_decode_queue=1) as made:
        monkeypatch.setattr(fake, "upload", lambda image: fake.gate.wait(100) and image)
        fake.gate.clear()
        tasks = [asyncio.create_task(made.pipeline.estimate(PNG))]
        while made.value("sdpose_queue_wait_seconds_count", stage="decode") < 1:
            await asyncio.sleep(0.002)
        tasks.append(asyncio.create_task(made.pipeline.estimate(PNG)))
        await until(made, 1, "decode")  # told while it waits, not only after
        with rejected(ErrorCode.OVERLOADED):
            await made.pipeline.estimate(PNG)
        assert made.value("sdpose_shed_total", reason="queue_full") == 1
        fake.gate.set()
        await asyncio.gather(*tasks)
        with rejected(ErrorCode.DEADLINE_EXCEEDED):
            await made.pipeline.estimate(PNG, turn=Turn(deadline=time.monotonic() - 1))
        assert made.value("sdpose_shed_total", reason="expired") == 1


async def test_a_closed_pipeline_says_unavailable_everywhere(fake: FakeEstimator) -> None:
    with stand(fake) as made:
        first = await made.held()
        queued = asyncio.create_task(made.pipeline.estimate(PNG))
        await until(made, 1, "detect")
        made.pipeline.close()
        with rejected(ErrorCode.UNAVAILABLE):
            await queued
        with rejected(ErrorCode.UNAVAILABLE):
            await made.pipeline.estimate(PNG)
        fake.gate.set()
        with pytest.raises(ServiceError) as cut:  # detected, and then nobody crops any more
            await first
        assert cut.value.code is ErrorCode.UNAVAILABLE


async def test_a_batch_waits_for_the_picture_that_is_being_decoded(fake: FakeEstimator) -> None:
    decoding, decoded = threading.Event(), threading.Event()

    def slowly(image: Image) -> Image:
        decoding.set()
        assert decoded.wait(100)
        return image

    limits = BatchLimits(8, max_wait_s=30.0)
    with stand(fake, detect=limits, pose=limits) as made:
        fake.upload = slowly  # type: ignore[method-assign]
        slow = asyncio.create_task(made.pipeline.estimate(PNG))
        await asyncio.to_thread(decoding.wait, 100)
        del fake.upload
        quick = asyncio.create_task(made.pipeline.estimate(PNG))
        await until(made, 1, "detect")
        decoded.set()
        await asyncio.gather(slow, quick)
        assert fake.detected == [2]
        assert [people for people, _, _ in fake.posed] == [2]


async def test_copies_go_as_the_request_or_the_service_says() -> None:
    """The last step is told of the whole image, of given boxes and of suppression."""
    with stand(FakeEstimator(people=3), suppress=False) as made:
        await made.pipeline.estimate(PNG)
        await made.pipeline.estimate(PNG, PoseParameters(suppress=True))
        await made.pipeline.estimate(PNG, boxes=BOXES)
        few = await made.pipeline.estimate(PNG, PoseParameters(max_people=1))
        assert made.fake.finished[:3] == [
            ((8, 8), False, False),
            ((8, 8), False, True),
            ((8, 8), True, False),
        ]
        assert len(few.poses) == 1
        assert made.fake.posed[-1][0] == 2, "one more box than wanted may be a copy"
    with stand(FakeEstimator()) as made:
        await made.pipeline.estimate(PNG)
        assert made.fake.finished == [((8, 8), False, True)]


class Narrow(FakeEstimator):
    """Holds all work of one pool at the gate, and notes whose it was in order."""

    held_stage = ""

    def upload(self, image: Image) -> Image:
        return self._noted("decode", image)

    def crop(self, image: Image, boxes: Floats) -> FakeCrops:
        return super().crop(self._noted("crop", image), boxes)

    def _noted(self, stage: str, image: Image) -> Image:
        if stage == self.held_stage:
            self.entered.set()
            assert self.gate.wait(100)
            self.detected.append(mark_of(image))
        return image


@pytest.mark.parametrize("stage", ["decode", "crop"])
async def test_priority_is_strict_in_a_pool_of_one_thread(stage: str) -> None:
    fake = Narrow()
    fake.held_stage = stage
    fake.gate.clear()
    with stand(fake, decode_threads=1) as made:

        def ask(mark: int, priority: Priority) -> asyncio.Task[object]:
            image = encoded(marked_image(mark), "PNG")
            turn = Turn(priority=priority.order)
            return asyncio.create_task(made.pipeline.estimate(image, boxes=BOXES, turn=turn))

        tasks = [ask(1, Priority.LOW)]
        await asyncio.to_thread(fake.entered.wait, 100)
        asked = (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.LOW, Priority.HIGH)
        for number, priority in enumerate(asked):
            tasks.append(ask(number + 2, priority))
            await until(made, number + 1, stage)
        fake.gate.set()
        await asyncio.gather(*tasks)
    assert fake.detected == [1, 4, 6, 3, 2, 5]
