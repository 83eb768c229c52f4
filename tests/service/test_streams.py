"""Streams over both front ends: answers, what is dropped, what ends a frame and what a stream."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import pytest
from websockets.exceptions import ConnectionClosed

from sdpose_client import ServiceError, StreamAnswer
from service.errors import ErrorCode
from service.runtime.state import State
from tests.fakes import FakeEstimator, marked_image, marked_png
from tests.pictures import encoded, png_bomb
from tests.service.conftest import (
    Service,
    in_the_model,
    rejected,
    serving,
    until_metrics_have,
    wait_until,
)
from tests.service.stream_clients import (
    Ended,
    Over,
    Stream,
    counted,
    end_of,
    mark_of,
    over_grpc,
    over_websocket,
    people_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("over", [over_grpc, over_websocket])]


def failed(answer: StreamAnswer) -> ServiceError:
    assert isinstance(answer.outcome, ServiceError)
    return answer.outcome


async def until_ended(service: Service, stream: Stream, outcome: str) -> None:
    await until_metrics_have(service, "sdpose_streams_active 0.0")
    line = f'sdpose_requests_total{{api="{stream.api}",outcome="{outcome}"}} 1.0'
    await until_metrics_have(service, line)


async def assert_bad(stream: Stream, field: str, message: str = "") -> None:
    end = await end_of(stream)
    assert end.status in (grpc.StatusCode.INVALID_ARGUMENT, 1008)
    assert (end.error.code, end.error.field) == (ErrorCode.INVALID_ARGUMENT, field)
    assert message in end.error.message


async def at_the_gate(fake: FakeEstimator) -> None:
    assert await asyncio.to_thread(fake.entered.wait, 100)


async def test_answers_in_order(service: Service, over: Over) -> None:
    async with over(service) as stream:
        for number in range(1, 6):
            await stream.send(marked_png(number), timestamp=number / 30)
            answer = await stream.answer()
            assert (answer.sequence, answer.dropped) == (number, 0)
            assert answer.timestamp == number / 30
            assert mark_of(answer) == number
        await until_metrics_have(service, "sdpose_streams_active 1.0")
        await stream.finish()
        await until_ended(service, stream, "ok")
    assert counted(service, "ok") == 5


async def test_latest_frame_wins(service: Service, fake: FakeEstimator, over: Over) -> None:
    fake.gate.clear()
    async with over(service) as stream:
        await stream.send(marked_png(1))
        await at_the_gate(fake)
        for number in range(2, 8):
            await stream.send(marked_png(number))
        await until_metrics_have(service, 'sdpose_stream_frames_total{outcome="dropped"} 5.0')
        fake.gate.set()
        first, last = await stream.answer(), await stream.answer()
    assert (first.sequence, first.dropped) == (1, 0)
    assert (last.sequence, last.dropped) == (7, 5)
    assert mark_of(last) == 7


async def test_no_frame_is_dropped_where_none_may_be(service: Service, over: Over) -> None:
    async with over(service, drop="none") as stream:
        for number in range(12):
            await stream.send(marked_png(number + 1), timestamp=float(number))
        answers = [await stream.answer() for _ in range(12)]
    assert [answer.timestamp for answer in answers] == list(map(float, range(12)))
    assert {answer.dropped for answer in answers} == {0}


async def test_a_stream_that_comes_back_keeps_its_people(service: Service, over: Over) -> None:
    async def ids(token: str | None) -> tuple[list[int | None], str | None]:
        settings = {"resume_token": token} if token else {}
        async with over(service, tracking=True, drop="none", **settings) as stream:
            for _ in range(3):
                await stream.send(marked_png(5))
            answers = [await stream.answer() for _ in range(3)]
            await stream.finish()
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        return [people_of(each)[0].id for each in answers], answers[0].resume_token

    first, token = await ids(None)
    again, same = await ids(token)
    other, another = await ids("no such token")
    assert first == again == other == [1, 1, 1]
    assert same == token is not None
    assert another not in (token, "no such token")
    kept = service.runtime.streams._resumable._kept
    assert {tracker.ids_given for tracker, _ in kept.values()} == {1}


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"", "invalid_image"),
        (encoded(marked_image(1), "JPEG")[:300], "invalid_image"),
        (b"hello, I am no image", "unsupported_media_type"),
        (png_bomb(), "payload_too_large"),
        (marked_png(1) + bytes(1_100_000), "payload_too_large"),
        (marked_png(0x0A0B0C), "internal"),
    ],
)
async def test_bad_frame_does_not_end_the_stream(over: Over, image: bytes, code: str) -> None:
    fake = FakeEstimator(poison=frozenset({0x0A0B0C}))
    async with serving(fake, max_image_mb=1) as service, over(service) as stream:
        await stream.send(image)
        answer = await stream.answer()
        assert (answer.sequence, failed(answer).code) == (1, code)
        assert "poison" not in failed(answer).message
        await stream.send(marked_png(7), sequence=20)
        answer = await stream.answer()
        assert answer.sequence == 20
        assert mark_of(answer) == 7
        await stream.finish()
        await until_ended(service, stream, "ok")
        assert (counted(service, code), counted(service, "ok")) == (1, 1)


async def test_settings_come_first(service: Service, fake: FakeEstimator, over: Over) -> None:
    fake.people = 3
    settings = {"options": {"max_people": 1, "min_keypoint_score": 0.88}}
    async with over(service, **settings) as stream:
        await stream.send(marked_png(4))
        (person,) = people_of(await stream.answer())
        assert len(person.keypoints) == 3
        await stream.configure(settings)
        await assert_bad(stream, "config")


@pytest.mark.parametrize(
    ("config", "field", "message"),
    [
        ({"detect_every": 1001}, "detect_every", "must be 1 to 1000, or auto"),
        ({"resume_token": "x" * 65}, "resume_token", "should have at most 64 characters"),
        ({"options": {"max_people": 0}}, "max_people", "should be greater than or equal to 1"),
    ],
)
async def test_bad_settings_end_the_stream(
    service: Service, over: Over, config: dict[str, Any], field: str, message: str
) -> None:
    async with over(service, **config) as stream:
        await assert_bad(stream, field, message)


async def test_frame_that_no_cycle_count_fits(service: Service, over: Over) -> None:
    async with over(service, options={"cycles": 8}) as stream:
        await stream.send(marked_png(1))
        error = failed(await stream.answer())
    assert (error.code, error.field) == (ErrorCode.INVALID_ARGUMENT, "cycles")


@pytest.mark.parametrize("first", [0, 1, 2**63])
async def test_numbers_rise_from_the_callers_first(
    service: Service, over: Over, first: int
) -> None:
    async with over(service) as stream:
        await stream.send(marked_png(1), sequence=first)
        assert (await stream.answer()).sequence == first
        await stream.send(marked_png(2))
        assert (await stream.answer()).sequence == first + 1
        await stream.send(marked_png(3), sequence=first + 1)
        await assert_bad(stream, "sequence")


async def test_no_number_comes_after_the_largest(service: Service, over: Over) -> None:
    async with over(service) as stream:
        await stream.send(marked_png(1), sequence=2**64 - 1)
        assert (await stream.answer()).sequence == 2**64 - 1
        await stream.send(marked_png(2))
        await assert_bad(stream, "sequence")


async def test_message_far_over_the_limit(over: Over) -> None:
    async with serving(FakeEstimator(), max_image_mb=0.1) as service, over(service) as stream:
        await stream.send(bytes(3 * 2**20))
        end = await end_of(stream)
        assert end.status in (grpc.StatusCode.RESOURCE_EXHAUSTED, 1009)
        assert end.error.code is ErrorCode.PAYLOAD_TOO_LARGE
        await until_metrics_have(service, "sdpose_streams_active 0.0")


async def test_memory_for_what_callers_sent_is_bounded(fake: FakeEstimator, over: Over) -> None:
    """Whole requests and frames share it; what does not fit is refused, and all is given back."""
    large = marked_png(1) + bytes(700_000)
    async with serving(fake, max_memory_mb=3) as service, over(service) as stream:
        in_flight = await in_the_model(fake, service.grpc.estimate(large))
        with rejected(ErrorCode.OVERLOADED):
            await service.grpc.estimate(large)
        await stream.send(large)
        assert failed(await stream.answer()).code is ErrorCode.OVERLOADED
        await until_metrics_have(service, 'sdpose_shed_total{reason="memory"} 2.0')
        fake.gate.set()
        await in_flight
        for number in (2, 3):
            await stream.send(large)
            answer = await stream.answer()
            assert (answer.sequence, len(people_of(answer))) == (number, 1)
        fake.gate.clear()
        fake.entered.clear()
        for _ in range(4):  # one is looked at, one waits, the others are pushed out
            await stream.send(large[:300_000])
        await at_the_gate(fake)
        stream.leave()
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        fake.gate.set()
        assert service.runtime.bodies.used == 0


async def test_late_frame_is_a_frame_error(over: Over) -> None:
    fake = FakeEstimator()
    async with serving(fake, max_deadline_ms=100) as service, over(service) as stream:
        fake.gate.clear()
        await stream.send(marked_png(1))
        assert failed(await stream.answer()).code is ErrorCode.DEADLINE_EXCEEDED
        fake.gate.set()
        await stream.finish()
        assert (counted(service, "deadline_exceeded"), counted(service, "ok")) == (1, 0)


async def test_refused_frame_is_a_frame_error(fake: FakeEstimator, over: Over) -> None:
    async with serving(fake, max_requests=1) as service, over(service) as stream:
        await stream.send(marked_png(1))
        await stream.answer()  # it is open, and holds no place between its frames
        in_flight = await in_the_model(fake, service.rest.estimate(marked_png(1)))
        await stream.send(marked_png(2))
        answer = await stream.answer()
        assert (answer.sequence, failed(answer).code) == (2, ErrorCode.OVERLOADED)
        fake.gate.set()
        await in_flight
        await stream.send(marked_png(3))
        assert people_of(await stream.answer())


async def test_lost_worker_ends_the_stream_and_refuses_others(
    fake: FakeEstimator, over: Over
) -> None:
    fake.fatal = frozenset({9})
    async with serving(fake) as service:
        async with over(service) as stream:
            await stream.send(marked_png(9))  # takes the worker down
            end = await end_of(stream)
        assert end.status in (grpc.StatusCode.UNAVAILABLE, 1013)
        assert end.error.code is ErrorCode.UNAVAILABLE
        assert (counted(service, "unavailable"), counted(service, "ok")) == (1, 0)
        async with over(service) as refused:
            end = await end_of(refused)
        assert end.status in (grpc.StatusCode.UNAVAILABLE, 1013)
        assert "pose worker, which is lost" in end.error.message


async def assert_drained(stream: Stream) -> None:
    end = await end_of(stream)
    assert end.status in (grpc.StatusCode.UNAVAILABLE, 1012)
    assert end.error.code is ErrorCode.UNAVAILABLE
    assert end.error.message == "the service is draining"


async def test_drain_answers_the_frame_at_work_and_tells_why(
    fake: FakeEstimator, over: Over
) -> None:
    async with serving(fake) as service, over(service) as stream:
        fake.gate.clear()
        await stream.send(marked_png(1))
        await at_the_gate(fake)
        service.stop.set()
        await wait_until(lambda: service.runtime.state is not State.READY)
        fake.gate.set()
        assert (await stream.answer()).sequence == 1
        await assert_drained(stream)


async def test_idle_stream_ends_when_draining(fake: FakeEstimator, over: Over) -> None:
    async with serving(fake) as service, over(service) as stream:
        await stream.send(marked_png(1))
        await stream.answer()
        service.stop.set()
        await assert_drained(stream)


async def test_stream_without_frames_is_ended(fake: FakeEstimator, over: Over) -> None:
    limits = {"max_streams": 1, "stream_idle_seconds": 0.1}
    async with serving(fake, **limits) as service, over(service) as stream:
        end = await end_of(stream)
        assert end.status in (grpc.StatusCode.DEADLINE_EXCEEDED, 1008)
        assert end.error.code is ErrorCode.DEADLINE_EXCEEDED
        assert end.error.message == "no frame came for 0.1 s"
        await until_ended(service, stream, "deadline_exceeded")


async def test_client_gone_takes_its_work_out_of_the_queue(
    service: Service, fake: FakeEstimator, over: Over
) -> None:
    first = await in_the_model(fake, service.rest.estimate(marked_png(1)))
    async with over(service) as stream:
        await stream.send(marked_png(2))
        await until_metrics_have(service, 'sdpose_queue_depth{stage="detect"} 1.0')
        await stream.send(marked_png(3))
        await stream.send(marked_png(4))
        await until_metrics_have(service, 'sdpose_stream_frames_total{outcome="dropped"} 1.0')
        stream.leave()
    await until_metrics_have(service, 'sdpose_queue_depth{stage="detect"} 0.0')
    # The frame that was asked for and the one that waited.
    await until_metrics_have(service, 'sdpose_stream_frames_total{outcome="client_gone"} 2.0')
    await until_metrics_have(service, "sdpose_streams_active 0.0")
    fake.gate.set()
    await first
    assert counted(service, "ok") == 0
    assert fake.detected == [1]


async def read_to_the_end(stream: Stream) -> Ended:
    while True:
        try:
            await stream.answer()
        except Ended as ended:
            return ended


async def test_client_that_does_not_read_is_dropped(over: Over) -> None:
    """Its answers fill the way back; then its frames are dropped, and in the end it is itself."""
    fake = FakeEstimator(people=100)
    async with serving(fake, max_deadline_ms=500) as service, over(service) as stream:
        await until_metrics_have(service, "sdpose_streams_active 1.0")
        with suppress(ConnectionClosed):
            while service.runtime.metrics.streams_active._value.get():
                await stream.send(marked_png(1))
                await asyncio.sleep(0)
        end = await read_to_the_end(stream)
        assert end.status in (grpc.StatusCode.DEADLINE_EXCEEDED, 1006)
        outcome = "deadline_exceeded" if over is over_grpc else "client_gone"
        await until_ended(service, stream, outcome)
        assert counted(service, "dropped") > 0


async def test_streams_are_bounded_over_both_front_ends(fake: FakeEstimator, over: Over) -> None:
    async with (
        serving(fake, max_streams=2) as service,
        over_grpc(service) as one,
        over_websocket(service) as other,
    ):
        for stream in (one, other):
            await stream.send(marked_png(1))
            assert people_of(await stream.answer())
        async with over(service) as refused:
            end = await end_of(refused)
        assert end.status in (grpc.StatusCode.RESOURCE_EXHAUSTED, 1013)
        assert end.error.code is ErrorCode.OVERLOADED
        assert end.error.message == "2 streams are open already"
        assert end.error.retry_after_s == (5 if over is over_grpc else None)
        await until_metrics_have(service, 'sdpose_shed_total{reason="too_many_streams"} 1.0')
        one.leave()
        await until_metrics_have(service, "sdpose_streams_active 1.0")
        async with over(service) as again:
            await again.send(marked_png(4))
            assert people_of(await again.answer())
