"""Streams with a story: the same script through both front ends, and when people are detected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdpose_client import PoseAnswer, ServiceError, StreamAnswer
from sdpose_core.tracking.pace import LONGEST_S, Pace
from sdpose_core.types import Floats
from service.parameters import PoseParameters
from service.pipeline.results import ModelNames, PoseResult
from service.scheduling.budget import ByteBudget
from service.streams.pose_stream import FrameAnswer, PoseStream
from service.streams.resume import Resumable
from service.streams.settings import StreamSettings, parse_stream_settings
from service.streams.slot import FrameSlot
from service.telemetry.metrics import Metrics
from tests.fakes import FakeEstimator, marked_png
from tests.service.conftest import serving
from tests.service.stream_clients import Stream, counted, over_grpc, over_websocket
from tests.tracking.walkers import Walker, walk

pytestmark = pytest.mark.anyio

STEPS: list[dict[str, Any]] = [
    {"image": 5, "sequence": 3, "timestamp": 0.5},
    {"image": 5},
    {"image": None},
    {"image": 6, "boxes": [{"x": 0, "y": 0, "width": 8, "height": 8}]},
    {"image": 6, "boxes": [{"x": 90, "y": 0, "width": 8, "height": 8}]},
    {"image": 0, "sequence": 20},
    {"image": 5, "timestamp": 2.5},
]


async def answers_of(stream: Stream, steps: list[dict[str, Any]]) -> list[StreamAnswer]:
    answers = []
    for step in steps:
        image, about = step["image"], {name: step[name] for name in step if name != "image"}
        await stream.send(b"no image" if image is None else marked_png(image), **about)
        answers.append(await stream.answer())
    return answers


def comparable(answer: StreamAnswer) -> tuple[object, ...]:
    """What an answer says, but for ids, tokens and times that no two streams share."""
    outcome: object = answer.outcome
    if isinstance(outcome, ServiceError):
        outcome = (outcome.code, outcome.message, outcome.field)
    elif isinstance(outcome, PoseAnswer):
        outcome = [
            (person.id, round(person.score, 4), round(person.keypoints[3].x, 2))
            for person in outcome.people
        ]
    return (
        answer.sequence,
        answer.dropped,
        answer.timestamp,
        answer.resume_token is not None,
        outcome,
    )


@pytest.mark.parametrize("config", [{"detect_every": 1}, {"smoothing": False, "detect_every": 2}])
async def test_one_script_through_both_front_ends(config: dict[str, Any]) -> None:
    # Smoothing goes by the time of arrival where a client gives none, and that is never the same.
    times = [
        step.get("timestamp", None if "smoothing" in config else 0.7 + n / 9)
        for n, step in enumerate(STEPS)
    ]
    steps = [
        step if when is None else {**step, "timestamp": when}
        for step, when in zip(STEPS, times, strict=True)
    ]
    answers, counts = [], []
    for over in (over_grpc, over_websocket):
        async with (
            serving(FakeEstimator(people=1)) as service,
            over(service, tracking=True, **config) as stream,
        ):
            answers.append(await answers_of(stream, steps))
            counts.append((counted(service, "ok"), counted(service, "invalid_argument")))
    one, other = answers
    assert list(map(comparable, one)) == list(map(comparable, other))
    assert counts == [(5, 1)] * 2
    assert [answer.sequence for answer in one] == [3, 4, 5, 6, 7, 20, 21]
    assert [answer.timestamp for answer in one] == times
    assert [answer.resume_token is not None for answer in one] == [True, *[False] * 6]
    # The stand-in sees nobody in a black image, unless the boxes before it are followed into it.
    empty = [] if config["detect_every"] == 1 else [1]
    assert [
        answer.outcome.code
        if isinstance(answer.outcome, ServiceError)
        else [person.id for person in answer.outcome.people]
        for answer in one
    ] == [[1], [1], "unsupported_media_type", [1], "invalid_argument", empty, [1]]


async def test_a_time_that_is_no_number_and_settings_after_a_frame() -> None:
    stream = _stream(_Camera())
    for number in (float("nan"), float("inf"), -1.7e308, 10**400):
        with pytest.raises(ServiceError, match="timestamp: must be a number of seconds"):
            await stream.send(b"", timestamp=number)
    await stream.send(b"")
    with pytest.raises(ServiceError, match="only the first message"):
        stream.configure(StreamSettings(), PoseParameters())


class _Camera:
    """One who walks, as the pipeline would answer; notes which frames were detected."""

    def __init__(self, timings: dict[str, float] | None = None) -> None:
        self.frames = list(walk([Walker(100, 40, 200, 400)], np.random.default_rng(0), seconds=9))
        self.number = 0
        self.detected: list[bool] = []
        self.size = (640, 480)
        self.score = 0.9
        self.timings = timings or {"detect": 20.0, "total": 30.0}

    async def __call__(
        self, image: bytes, parameters: PoseParameters, boxes: Floats | None
    ) -> PoseResult:
        self.detected.append(boxes is None)
        poses = self.frames[self.number].poses
        self.number += 1
        poses.keypoint_scores[:] = self.score
        timings = dict(self.timings)
        if boxes is not None:
            timings["total"] -= timings.pop("detect")
            poses.scores[:] = 1
        models = ModelNames("s", "d", "b", "cpu")
        return PoseResult(poses, *self.size, models, timings)


def _stream(camera: _Camera, resumable: Resumable | None = None) -> PoseStream:
    slot = FrameSlot(ByteBudget(2**20, "frames", lambda: None), 5.0)
    return PoseStream(slot, camera, Metrics(), resumable or Resumable(4, 30.0))


async def _look(stream: PoseStream, frames: int = 1) -> list[FrameAnswer]:
    answers = []
    for _ in range(frames):
        await stream.send(b"image")
        answer = await stream.answer()
        assert answer is not None
        assert isinstance(answer.outcome, PoseResult), answer.outcome
        answers.append(answer)
    return answers


async def test_every_third_frame_is_detected_and_scores_stay_those_of_the_detector() -> None:
    camera = _Camera()
    stream = _stream(camera)
    stream.configure(*parse_stream_settings({"detect_every": 3}))
    answers = await _look(stream, 9)
    assert camera.detected == [True, False, False] * 3
    assert {float(one.outcome.poses.scores[0]) for one in answers} == {  # type: ignore[union-attr]
        float(np.float32(0.8))
    }
    assert "track" in answers[0].outcome.timings_ms  # type: ignore[union-attr]


async def test_who_is_lost_is_looked_for_in_the_next_frame() -> None:
    camera = _Camera()
    stream = _stream(camera)
    stream.configure(*parse_stream_settings({"detect_every": 100}))
    await _look(stream, 3)
    camera.score = 0.1
    (lost,) = await _look(stream)
    assert len(lost.outcome.poses) == 0  # type: ignore[union-attr]
    camera.score = 0.9
    await _look(stream, 2)
    assert camera.detected == [True, False, False, False, True, False]


async def test_an_image_of_another_size_is_detected() -> None:
    camera = _Camera()
    stream = _stream(camera)
    stream.configure(*parse_stream_settings({"detect_every": 100}))
    await _look(stream, 2)
    camera.size = (320, 240)
    await _look(stream, 2)
    assert camera.detected == [True, False, False, True, False]


async def test_a_resumed_stream_smooths_as_it_asks_itself() -> None:
    resumable = Resumable(4, 30.0)
    first = _stream(_Camera(), resumable)
    token = (await _look(first, 3))[0].resume_token
    assert token is not None
    assert first._tracker is not None
    resumable.keep(token, first._tracker)
    camera = _Camera()
    again = _stream(camera, resumable)
    settings = {"smoothing": False, "resume_token": token, "detect_every": 1}
    again.configure(*parse_stream_settings(settings))
    for answer, shown in zip(await _look(again, 3), camera.frames, strict=False):
        assert isinstance(answer.outcome, PoseResult)
        assert (answer.outcome.poses.keypoints == shown.poses.keypoints).all()
        assert answer.outcome.poses.ids is not None
        assert answer.outcome.poses.ids.tolist() == [1]


async def test_tracking_off_detects_every_frame_and_gives_no_ids() -> None:
    camera = _Camera()
    stream = _stream(camera)
    stream.configure(*parse_stream_settings({"tracking": False, "detect_every": 5}))
    answers = await _look(stream, 4)
    assert camera.detected == [True] * 4
    assert all(one.outcome.poses.ids is None for one in answers)  # type: ignore[union-attr]
    assert answers[0].resume_token is None


def _detections(interval_s: float, detect_ms: float, rest_ms: float, frames: int = 60) -> list[int]:
    pace, numbers, now = Pace("auto"), [], 0.0
    for number in range(frames):
        pace.arrived(now)
        if pace.due():
            pace.detected(detect_ms + rest_ms)
            numbers.append(number)
        else:
            pace.followed(rest_ms, lost=False)
        now += interval_s
    return numbers


def test_the_automatic_pace() -> None:
    assert len(_detections(0.1, 20, 10)) == 60, "there is time for every frame"
    some = _detections(1 / 30, 20, 15)
    assert 60 / 4 <= len(some) <= 60 / 2 + 2, "there is time for every second"
    rare = _detections(1 / 30, 20, 40)
    assert max(np.diff(rare)) <= 10
    slow = _detections(0.2, 200, 190)
    assert max(np.diff(slow)) * 0.2 <= LONGEST_S + 0.2, "new people are found in time"


def test_trackers_are_kept_for_a_while_and_not_too_many() -> None:
    from sdpose_core.tracking import PeopleTracker

    now = 0.0
    kept = Resumable(2, 10.0, lambda: now)
    first, second, third = (PeopleTracker() for _ in range(3))
    kept.keep("a", first)
    kept.keep("b", second)
    kept.keep("c", third)
    assert len(kept) == 2
    assert kept.take("a") is None
    assert kept.take("b") is second
    assert kept.take("b") is None, "a token serves once at a time"
    now = 10.5
    assert kept.take("c") is None
