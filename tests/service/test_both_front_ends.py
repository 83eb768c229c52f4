"""The same cases through REST and gRPC: same answers, same error codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from sdpose_client import Box, PoseAnswer
from sdpose_client.requests import Ask
from service.bench.load import RestConnection
from service.errors import ErrorCode, ServiceError
from service.rest.errors import HTTP_STATUS
from service.rpc.errors import GRPC_STATUS
from tests.fakes import PNG, FakeEstimator, marked_image, marked_png
from tests.pictures import animated_gif, corners, encoded, jpeg_with_orientation, png_bomb
from tests.service.conftest import (
    Service,
    in_the_model,
    rejected,
    serving,
    until_metrics_have,
    until_queued,
    wait_until,
)

pytestmark = pytest.mark.anyio

BOTH = ["rest", "grpc"]


async def ask(
    service: Service, front: str, image: bytes, what: Ask | None = None, **options: object
) -> PoseAnswer:
    client = getattr(service, front)
    answer: PoseAnswer = await client.estimate(image, what or Ask(), **options)
    return answer


def test_both_tables_cover_every_code() -> None:
    assert set(HTTP_STATUS) == set(ErrorCode)
    assert set(GRPC_STATUS) == set(ErrorCode)


@dataclass(frozen=True)
class Refused:
    """A request that must get one code of the vocabulary."""

    name: str
    image: bytes
    code: ErrorCode
    what: Ask = field(default_factory=Ask)
    field: str | None = None


_TRUNCATED = encoded(
    np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), "JPEG"
)[:2000]


def wrong(name: str, field: str, **asked: Any) -> Refused:
    return Refused(name, PNG, ErrorCode.INVALID_ARGUMENT, Ask(**asked), field)


REFUSED = [
    Refused("truncated jpeg", _TRUNCATED, ErrorCode.INVALID_IMAGE),
    Refused("empty", b"", ErrorCode.INVALID_IMAGE),
    Refused("text", b"hello, I am no image", ErrorCode.UNSUPPORTED_MEDIA_TYPE),
    Refused("bomb", png_bomb(), ErrorCode.PAYLOAD_TOO_LARGE),
    Refused("too many bytes", PNG + bytes(1_100_000), ErrorCode.PAYLOAD_TOO_LARGE),
    wrong("box outside", "boxes", boxes=[Box(100, 0, 5, 5)]),
    wrong("nan box", "boxes", boxes=[Box(math.nan, 0, 5, 5)]),
    wrong("infinite box", "boxes", boxes=[Box(0, 0, math.inf, 5)]),
    wrong("flat box", "boxes", boxes=[Box(0, 0, 0, 5)]),
    Refused(
        "too many boxes",
        PNG,
        ErrorCode.PAYLOAD_TOO_LARGE,
        Ask(boxes=[Box(0, 0, 5, 5)] * 6),
        "boxes",
    ),
    wrong("nobody", "max_people", max_people=0),
    wrong("score", "min_score", min_score=1.5),
    wrong("nan score", "min_score", min_score=math.nan),
    wrong("keypoint score", "min_keypoint_score", min_keypoint_score=2),
    wrong("cycles", "cycles", cycles=3),
    wrong("no cycle", "cycles", cycles=0),  # fake: 1 to 3
    wrong("auto", "cycles", cycles="auto"),
]


@pytest.fixture(scope="module")
async def strict() -> Service:  # type: ignore[misc]
    async with serving(FakeEstimator(people=2), max_image_mb=1, max_boxes=5) as running:
        yield running


@pytest.mark.parametrize("front", BOTH)
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
async def test_bad_requests(strict: Service, front: str, case: Refused) -> None:
    with pytest.raises(ServiceError) as refused:
        await ask(strict, front, case.image, case.what)
    assert refused.value.code is case.code
    assert refused.value.field == case.field or case.name == "too many bytes"


ACCEPTED = {
    "one pixel": (encoded(np.full((1, 1, 3), 9, np.uint8), "PNG"), (1, 1)),
    "cmyk": (encoded(PillowImage.new("CMYK", (48, 32)), "JPEG"), (48, 32)),
    "16 bit": (encoded(PillowImage.fromarray(np.full((32, 48), 999, np.uint16)), "PNG"), (48, 32)),
    "grey": (encoded(PillowImage.new("L", (48, 32), 50), "PNG"), (48, 32)),
    "alpha": (encoded(PillowImage.new("RGBA", (48, 32)), "PNG"), (48, 32)),
    "animated gif": (animated_gif(), (48, 32)),
    "webp": (encoded(corners(), "WEBP"), (48, 32)),
    "avif": (encoded(corners(), "AVIF"), (48, 32)),
    **{f"exif {turn}": (jpeg_with_orientation(turn), (48, 32)) for turn in range(1, 9)},
}


@pytest.mark.parametrize("front", BOTH)
@pytest.mark.parametrize("name", ACCEPTED)
async def test_good_images(strict: Service, front: str, name: str) -> None:
    image, size = ACCEPTED[name]
    answer = await ask(strict, front, image)
    assert (answer.width, answer.height) == size


async def test_same_answer(strict: Service) -> None:
    asked = Ask(min_keypoint_score=0.5, max_people=1)
    rest = await ask(strict, "rest", PNG, asked, request_id="same")
    rpc = await ask(strict, "grpc", PNG, asked, request_id="same")
    assert len(rest.people) == 1
    assert 0 < len(rest.people[0].keypoints) < 17
    for score, visibility in ((one.score, one.visibility) for one in rpc.people[0].keypoints):
        assert visibility == pytest.approx((1 + score) / 2, abs=1e-3)

    def rounded(answer: PoseAnswer) -> PoseAnswer:
        people = tuple(
            replace(
                person,
                score=round(person.score, 3),
                keypoints=tuple(
                    replace(
                        point,
                        score=round(point.score, 3),
                        visibility=round(point.visibility or 0, 3),
                    )
                    for point in person.keypoints
                ),
            )
            for person in answer.people
        )
        return replace(answer, people=people, timings_ms={})

    assert rounded(rest) == rounded(rpc)
    assert set(rest.timings_ms) == set(rpc.timings_ms) >= {"decode", "detect", "pose", "total"}


@pytest.mark.parametrize("front", BOTH)
async def test_boxes_skip_the_detector(service: Service, fake: FakeEstimator, front: str) -> None:
    answer = await ask(service, front, PNG, Ask(boxes=[Box(1, 2, 3, 4), Box(-5, -5, 7, 7)]))
    assert fake.detected == []
    assert [person.box for person in answer.people] == [Box(1, 2, 3, 4), Box(-5, -5, 7, 7)]
    assert [person.score for person in answer.people] == [1, 1]
    nobody = await ask(service, front, PNG, Ask(boxes=[]))
    assert nobody.people == ()
    assert fake.detected == []


@pytest.mark.parametrize("front", BOTH)
async def test_options_reach_the_model(service: Service, fake: FakeEstimator, front: str) -> None:
    await ask(service, front, PNG, Ask(cycles=2, flip_test=True))
    await ask(service, front, PNG)
    assert fake.posed == [(1, True, 2), (1, False, 1)]


@pytest.mark.parametrize("front", BOTH)
async def test_nobody_in_the_picture(service: Service, fake: FakeEstimator, front: str) -> None:
    answer = await ask(service, front, marked_png(0))
    assert answer.people == ()
    assert fake.posed == []


@pytest.mark.parametrize("front", BOTH)
async def test_fewer_people(service: Service, fake: FakeEstimator, front: str) -> None:
    fake.people = 5
    assert len((await ask(service, front, PNG, Ask(max_people=2))).people) == 2
    assert len((await ask(service, front, PNG, Ask(min_score=0.75))).people) == 2


@pytest.mark.parametrize("front", BOTH)
async def test_deadline_in_the_queue(service: Service, fake: FakeEstimator, front: str) -> None:
    first = await in_the_model(fake, ask(service, front, PNG))
    with rejected(ErrorCode.DEADLINE_EXCEEDED):
        await ask(service, front, PNG, timeout_s=0.15)
    assert not first.done()
    fake.gate.set()
    await first
    await ask(service, front, PNG)
    assert fake.detected == [1, 1], "what nobody waits for is not looked at"


@pytest.mark.parametrize("front", BOTH)
async def test_queue_full(front: str) -> None:
    fake = FakeEstimator()
    async with serving(fake) as service:
        first = await in_the_model(fake, ask(service, front, PNG))
        # Of the 64 that may wait, one caller has four fifths; a batch is begun.
        others = [asyncio.create_task(ask(service, front, PNG)) for _ in range(70)]
        shed = service.runtime.metrics.shed_total.labels("queue_full")
        await wait_until(lambda: shed._value.get() >= 1)
        fake.gate.set()
        await first
        outcomes = await asyncio.gather(*others, return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, ServiceError)]
        assert 0 < len(refused) < len(others)
        assert all(one.code is ErrorCode.OVERLOADED for one in refused)
        assert all((one.retry_after_s or 0) >= 1 for one in refused)


@pytest.mark.parametrize("front", BOTH)
async def test_too_many_requests(fake: FakeEstimator, front: str) -> None:
    async with serving(fake, max_requests=2) as service:
        fake.gate.clear()
        in_flight = [asyncio.create_task(ask(service, front, PNG)) for _ in range(2)]
        await wait_until(lambda: service.runtime.in_flight >= 2)
        with rejected(ErrorCode.OVERLOADED):
            await ask(service, front, PNG)
        fake.gate.set()
        await asyncio.gather(*in_flight)


@pytest.mark.parametrize("front", BOTH)
async def test_client_gone(service: Service, fake: FakeEstimator, front: str) -> None:
    first = await in_the_model(fake, ask(service, front, PNG))
    gone = asyncio.create_task(ask(service, front, PNG))
    await until_queued(service, 1)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    await until_queued(service, 0)  # the work leaves the queue while the model is busy
    fake.gate.set()
    await first
    assert fake.detected == [1]


@pytest.mark.parametrize("front", BOTH)
async def test_poisoned_image_fails_alone(fake: FakeEstimator, front: str) -> None:
    fake.poison = frozenset({0x0A0B0C})
    async with serving(fake) as service:
        first = await in_the_model(fake, ask(service, front, PNG))
        bad = asyncio.create_task(ask(service, front, marked_png(0x0A0B0C), request_id="find-me"))
        good = [asyncio.create_task(ask(service, front, PNG)) for _ in range(3)]
        await until_queued(service, 4)
        fake.gate.set()
        await asyncio.gather(first, *good)
        with pytest.raises(ServiceError) as failed:
            await bad
    assert failed.value.code is ErrorCode.INTERNAL
    assert "poison" not in failed.value.message


@pytest.mark.parametrize("front", BOTH)
@pytest.mark.parametrize("value", [math.nan, math.inf])
async def test_what_is_not_finite_is_a_fault_of_ours(
    service: Service, fake: FakeEstimator, front: str, value: float
) -> None:
    """JSON has no word for it, and no caller could use it."""
    fake.oddity = value
    with rejected(ErrorCode.INTERNAL):
        await ask(service, front, PNG)
    fake.oddity = None
    assert (await ask(service, front, PNG)).people


@pytest.mark.parametrize("front", BOTH)
async def test_request_id_comes_back(service: Service, front: str) -> None:
    assert (await ask(service, front, PNG, request_id="my-id.7")).request_id == "my-id.7"
    made = (await ask(service, front, PNG)).request_id
    assert len(made) == 32
    refused_id = (await ask(service, front, PNG, request_id="no spaces allowed")).request_id
    assert refused_id != "no spaces allowed"


@pytest.mark.parametrize("front", BOTH)
async def test_outcomes_are_counted(service: Service, front: str) -> None:
    await ask(service, front, PNG)
    with pytest.raises(ServiceError):
        await ask(service, front, b"no image")
    api = {"rest": "rest_pose", "grpc": "grpc_estimate"}[front]
    await until_metrics_have(service, f'sdpose_requests_total{{api="{api}",outcome="ok"}} 1.0')
    await until_metrics_have(
        service, f'sdpose_requests_total{{api="{api}",outcome="unsupported_media_type"}} 1.0'
    )
    await until_metrics_have(service, f'sdpose_request_seconds_count{{api="{api}"}} 2.0')


async def test_no_answer_reaches_another() -> None:
    """2000 requests under way at once, half of them a front end: each gets its own people.

    The keypoints tell an image by its mark, the boxes by its size.
    """
    marks = range(1, 1 + 7919 * 2000, 7919)
    fake = FakeEstimator()
    fake.gate.clear()
    seen: dict[int, tuple[set[float], float, float]] = {}

    def picture(mark: int) -> bytes:
        return encoded(marked_image(mark, 8 + mark % 23, 8 + mark % 29), "PNG")

    async def over_rest(service: Service, mark: int) -> None:
        port = int(service.url.rpartition(":")[2])
        async with RestConnection("127.0.0.1", port) as connection:
            query = f"?cycles={1 + mark % 2}&flip_test={mark % 3 == 0}"
            (person,) = json.loads(await connection.ask(picture(mark), query))["people"]
            box = person["box"]
            points = {point["x"] for point in person["keypoints"]}
            seen[mark] = points, box["width"], box["height"]

    async def over_grpc(service: Service, mark: int) -> None:
        asked = Ask(cycles=1 + mark % 2, flip_test=mark % 3 == 0)
        (person,) = (await service.grpc.estimate(picture(mark), asked)).people
        seen[mark] = {point.x for point in person.keypoints}, person.box.width, person.box.height

    # A quarter may wait in each queue, and one caller may not have all of it.
    admitted = 8 * len(marks)
    with many_files(len(marks) + 500):  # both ends of every HTTP connection are here
        # No deadline to speak of: the batch behind the gate takes as long as all the others need to
        # come, and on a busy machine a forecast from that would refuse them as late.
        hour = dict.fromkeys(("max_deadline_ms", "default_deadline_ms"), 3_600_000)
        async with serving(fake, **hour, max_requests=admitted) as service:
            asking = asyncio.gather(
                *(
                    (over_rest if index % 2 else over_grpc)(service, mark)
                    for index, mark in enumerate(marks)
                )
            )
            while service.runtime.in_flight < len(marks) and not asking.done():
                await asyncio.sleep(0.01)
            fake.gate.set()
            await asking
    assert seen == {mark: ({float(mark)}, 8 + mark % 23, 8 + mark % 29) for mark in marks}
    assert max(fake.detected) > 1, "batches must form for this test to mean anything"


@contextlib.contextmanager
def many_files(count: int) -> Iterator[None]:
    """Room for so many open files, where the system's own bound allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"needs {count} open files, the system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
