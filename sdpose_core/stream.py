"""Poses of one source frame by frame, in time: what ``sdpose stream`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import quantiles
from typing import Literal, Protocol

import cv2
import numpy as np

from sdpose_core.estimator import PoseEstimator
from sdpose_core.io.overlay import draw_poses
from sdpose_core.io.sources import Source, read_picture
from sdpose_core.io.video import VideoReader, VideoWriter
from sdpose_core.io.writers import Record, RecordWriter
from sdpose_core.tracking import Following, PeopleTracker, TrackingConfig
from sdpose_core.types import Image, Poses


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """One frame on its way.

    Attributes:
        number: from 0.
        time_s: when it was taken: seconds since the first frame.
        taken_s: when it was at hand, a ``time.monotonic()`` moment.
        image: its pixels.
        dropped: frames of the source that were left out since the one before.
    """

    number: int
    time_s: float
    taken_s: float
    image: Image
    dropped: int = 0


Answers = Iterator[tuple[StreamFrame, Poses]]


class Answering(Protocol):
    """Gives the people of each frame it takes, in order; it may leave frames out."""

    def __call__(self, frames: Iterable[StreamFrame]) -> Answers: ...


@dataclass(frozen=True, slots=True)
class LocalAnswering:
    """With models in this process.

    Attributes:
        estimator: has a detector.
        tracking: how people get ids; None for no ids and a detection in every frame.
        detect_every: as ``Following`` has it.
        max_people: of the answer; None for all.
        min_score: of people; None leaves it to the models.
    """

    estimator: PoseEstimator
    tracking: TrackingConfig | None = field(default_factory=TrackingConfig)
    detect_every: int | Literal["auto"] = "auto"
    max_people: int | None = None
    min_score: float | None = None

    def __call__(self, frames: Iterable[StreamFrame]) -> Answers:
        tracker = None if self.tracking is None else PeopleTracker(self.tracking)
        following = Following(self.detect_every)
        for frame in frames:
            following.offered(frame.taken_s)
            if tracker is None:
                yield frame, self._detected(frame)
                continue
            poses = self._followed(frame, following)
            if poses is None:
                began = time.perf_counter()
                poses = self._detected(frame)
                spent = (time.perf_counter() - began) * 1e3
                # Nobody here tells detection and pose apart; the first is about half.
                following.detected(frame.taken_s, {"detect": spent / 2, "total": spent})
            height, width = frame.image.shape[:2]
            following.seen(poses, (width, height))
            yield frame, tracker.update(poses, frame.time_s)

    def _detected(self, frame: StreamFrame) -> Poses:
        return self.estimator.estimate(
            [frame.image], max_people=self.max_people, min_score=self.min_score
        )[0]

    def _followed(self, frame: StreamFrame, following: Following) -> Poses | None:
        boxes = following.boxes(frame.taken_s)
        if boxes is None:
            return None
        began = time.perf_counter()
        (poses,) = self.estimator.estimate([frame.image], boxes=[boxes])
        height, width = frame.image.shape[:2]
        spent = (time.perf_counter() - began) * 1e3
        return following.followed(poses, (width, height), {"total": spent})


@dataclass(slots=True)
class Summary:
    """A stream so far.

    Attributes:
        latencies_ms: of each answer, from the frame at hand to its people.
        dropped: frames left out because newer ones had come.
        ids: of all people that got one.
        began_s: ``time.monotonic()`` of the first answer.
        ended_s: of the last.
    """

    latencies_ms: list[float] = field(default_factory=list)
    dropped: int = 0
    ids: set[int] = field(default_factory=set)
    began_s: float = 0.0
    ended_s: float = 0.0

    def add(self, frame: StreamFrame, poses: Poses) -> None:
        """One more answer."""
        self.ended_s = time.monotonic()
        if not self.latencies_ms:
            self.began_s = frame.taken_s
        self.latencies_ms.append((self.ended_s - frame.taken_s) * 1e3)
        self.dropped += frame.dropped
        if poses.ids is not None:
            self.ids.update(int(one) for one in poses.ids if one)

    @property
    def rate(self) -> float:
        """Answers a second."""
        seconds = self.ended_s - self.began_s
        return len(self.latencies_ms) / seconds if seconds > 0 else 0.0

    def __str__(self) -> str:
        if not self.latencies_ms:
            return "no frames"
        cuts = quantiles([*self.latencies_ms, self.latencies_ms[-1]], n=20, method="inclusive")
        return (
            f"{len(self.latencies_ms)} frames, {self.rate:.1f} a second; p50 {cuts[9]:.0f} ms, "
            f"p95 {cuts[18]:.0f} ms; {self.dropped} dropped; {len(self.ids)} people with an id"
        )


@dataclass(slots=True)
class StreamRun:
    """From frames to files and the screen.

    Attributes:
        name: of the source, in results.
        writer: takes the results; None for none.
        overlay: video file for the frames with the people drawn in; None for none.
        rate: frames a second that the overlay says it has.
        show: told of each answer, for a live display.
        summary: of what was done.
    """

    name: str
    writer: RecordWriter | None
    overlay: Path | None
    rate: Fraction
    show: Callable[[Summary, Image, Poses], None]
    summary: Summary = field(default_factory=Summary)

    def run(self, answers: Answers) -> None:
        """Work until there are no more. Raises what the parts raise; files are whole then too."""
        with ExitStack() as stack:
            video = None
            if self.overlay is not None:
                video = stack.enter_context(VideoWriter(self.overlay, self.rate))
            last_s, drawn_size = -1.0, (0, 0)
            for frame, poses in answers:
                self.summary.add(frame, poses)
                height, width = frame.image.shape[:2]
                if self.writer is not None:
                    self.writer.write(
                        Record(self.name, width, height, poses, frame.number, frame.time_s)
                    )
                if video is not None:
                    last_s = max(frame.time_s, last_s + 0.001)
                    drawn_size = drawn_size if any(drawn_size) else (width, height)
                    drawing = draw_poses(frame.image, poses)
                    if (width, height) != drawn_size:  # a camera that came back with another size
                        drawing = np.asarray(cv2.resize(drawing, drawn_size), np.uint8)
                    video.write(drawing, last_s)
                self.show(self.summary, frame.image, poses)


def recorded_frames(
    sources: list[Source], fps: float | None, every: int, stopping: Callable[[], bool]
) -> Iterator[StreamFrame]:
    """Frames of a video file, or of images that count as frames.

    Args:
        sources: one video, or images in order.
        fps: of images; None counts 10.
        every: only each so-manieth.
        stopping: true ends it.
    """
    if len(sources) == 1 and sources[0].is_video:
        assert sources[0].path is not None
        with VideoReader(sources[0].path) as reader:
            pictures = ((frame.time_s, frame.image) for frame in reader)
            yield from _numbered(pictures, every, stopping)
        return
    step = 1 / (fps or 10.0)
    pictures = ((n * step, read_picture(source)) for n, source in enumerate(sources))
    yield from _numbered(pictures, every, stopping)


def _numbered(
    pictures: Iterable[tuple[float, Image]], every: int, stopping: Callable[[], bool]
) -> Iterator[StreamFrame]:
    for number, (time_s, image) in enumerate(pictures):
        if stopping():
            return
        if number % every == 0:
            yield StreamFrame(number, time_s, time.monotonic(), image)
