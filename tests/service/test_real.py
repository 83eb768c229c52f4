"""The served models themselves: REST, gRPC and the library give the same people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from sdpose_client import AsyncGrpcPoseClient, AsyncRestPoseClient, Box, PoseAnswer
from sdpose_client.requests import Ask
from sdpose_core import PoseEstimator, Poses
from sdpose_core.vision.image_files import ImageLimits, decode_image
from tests.service.conftest import Service, serving

pytestmark = pytest.mark.anyio

PATIENT = {"max_queue_ms": 600_000, "default_deadline_ms": 600_000, "max_deadline_ms": 600_000}
Client = AsyncRestPoseClient | AsyncGrpcPoseClient


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    from ultralytics.utils import ASSETS

    return [(ASSETS / name).read_bytes() for name in ("bus.jpg", "zidane.jpg")]


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator.from_pretrained()


@pytest.fixture(scope="module")
async def real(estimator: PoseEstimator) -> AsyncIterator[Service]:
    async with serving(estimator, max_cycles=1, **PATIENT) as running:
        yield running


def assert_same(answer: PoseAnswer, poses: Poses, tolerance: float = 0.02) -> None:
    assert len(answer.people) == len(poses)
    for index, person in enumerate(answer.people):
        points = np.array([(point.x, point.y) for point in person.keypoints])
        np.testing.assert_allclose(points, poses.keypoints[index], atol=tolerance)
        scores = [point.score for point in person.keypoints]
        np.testing.assert_allclose(scores, poses.keypoint_scores[index], atol=1e-3)
        assert poses.visibility is not None
        visibility = [point.visibility for point in person.keypoints]
        np.testing.assert_allclose(visibility, poses.visibility[index], atol=1e-3)
        box = person.box
        corners = [box.x, box.y, box.x + box.width, box.y + box.height]
        np.testing.assert_allclose(corners, poses.boxes[index], atol=0.02)
        assert person.score == pytest.approx(float(poses.scores[index]), abs=1e-3)


async def test_library_rest_and_grpc_agree(
    real: Service, estimator: PoseEstimator, pictures: list[bytes]
) -> None:
    for picture in pictures:
        (poses,) = estimator.estimate([decode_image(picture, ImageLimits())])
        assert len(poses) >= 2
        for client in (real.rest, real.grpc):
            assert_same(await client.estimate(picture), poses)


async def test_boxes_and_options_agree(
    real: Service, estimator: PoseEstimator, pictures: list[bytes]
) -> None:
    image = decode_image(pictures[0], ImageLimits())
    (poses,) = estimator.estimate([image], [[[48.0, 399.0, 246.0, 902.0]]], flip_test=True)
    asked = Ask(boxes=[Box(48, 399, 198, 503)], flip_test=True)
    for client in (real.rest, real.grpc):
        answer = await client.estimate(pictures[0], asked)
        assert_same(answer, poses)


async def test_batched_with_others_nobody_gets_anothers_people(
    real: Service, estimator: PoseEstimator, pictures: list[bytes]
) -> None:
    boxes: list[tuple[int, Box, Poses]] = []
    for number, picture in enumerate(pictures):
        image = decode_image(picture, ImageLimits())
        (found,) = estimator.estimate([image], max_people=2)
        for x1, y1, x2, y2 in found.boxes.round().tolist():
            (alone,) = estimator.estimate([image], [[[x1, y1, x2, y2]]])
            boxes.append((number, Box(x1, y1, x2 - x1, y2 - y1), alone))

    async def ask(client: Client, index: int) -> None:
        number, box, expected = boxes[index % len(boxes)]
        answer = await client.estimate(pictures[number], Ask(boxes=[box]))
        # In another batch size the arithmetic differs a little.
        assert_same(answer, expected, tolerance=0.5)

    clients: list[Client] = [real.rest, real.grpc]
    await asyncio.gather(*(ask(clients[index % 2], index) for index in range(12)))
