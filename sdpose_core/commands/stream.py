"""Poses of one source frame by frame, in time: what ``sdpose stream`` does."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import quantiles
from typing import Final, Literal, Protocol

import cv2
import numpy as np

from sdpose_core.estimator import PoseEstimator
from sdpose_core.io.live import TimedImage
from sdpose_core.io.overlay import draw_poses
from sdpose_core.io.problems import MediaError
from sdpose_core.io.results.record import Record, RecordWriter
from sdpose_core.io.sources import Source, read_picture
from sdpose_core.io.video import VideoReader, VideoWriter
from sdpose_core.tracking import Following, PeopleTracker, TrackingConfig
from sdpose_core.types import Image, Poses

REMEMBERED: Final = 100_000
"""Latencies that percentiles are of; a camera may run for months."""

Answers = Iterator[tuple[TimedImage, Poses]]


class Answering(Protocol):
    """Gives the people of each frame it takes, in order; it may leave frames out."""

    def __call__(self, frames: Iterable[TimedImage]) -> Answers: ...


@dataclass(frozen=True, slots=True)
class LocalAnswering:
    """With models in this process.

    Attributes:
        estimator: has a detector.
        tracking: how people get ids; None for no ids and a detection in every frame.
        detect_every: as ``Following`` has it.
        max_people: of the answer; None for all.
        min_score: of people; None leaves it to the models.
        suppress: leave out copies of a better scored person.
    """

    estimator: PoseEstimator
    tracking: TrackingConfig | None = field(default_factory=TrackingConfig)
    detect_every: int | Literal["auto"] = "auto"
    max_people: int | None = None
    min_score: float | None = None
    suppress: bool = True

    def __call__(self, frames: Iterable[TimedImage]) -> Answers:
        if self.tracking is None:
            yield from ((frame, self._detected(frame)) for frame in frames)
            return
        tracker = PeopleTracker(self.tracking)
        following = Following(self.detect_every, suppress=self.suppress)
        for frame in frames:
            yield frame, tracker.update(self._looked(frame, following), frame.time_s)

    def _looked(self, frame: TimedImage, following: Following) -> Poses:
        height, width = frame.image.shape[:2]
        expected = following.boxes(frame.ready_s)
        began = time.perf_counter()
        if expected is not None:
            (poses,) = self.estimator.estimate([frame.image], boxes=[expected])
            total_ms = (time.perf_counter() - began) * 1e3
            followed = following.followed(poses, (width, height), total_ms)
            if followed is not None:
                return followed
        poses = self._detected(frame)
        following.detected(poses, (width, height), (time.perf_counter() - began) * 1e3)
        return poses

    def _detected(self, frame: TimedImage) -> Poses:
        return self.estimator.estimate(
            [frame.image],
            max_people=self.max_people,
            min_score=self.min_score,
            suppress=self.suppress,
        )[0]


@dataclass(slots=True)
class Summary:
    """A stream so far.

    Attributes:
        frames: answered.
        latencies_ms: of the last answers, from the frame to its people.
        dropped: frames left out because newer ones had come.
        ids: of all people that got one.
        began_s: ``time.monotonic()`` of the first answer.
        ended_s: of the last.
    """

    frames: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    dropped: int = 0
    ids: set[int] = field(default_factory=set)
    began_s: float = 0.0
    ended_s: float = 0.0

    def add(self, frame: TimedImage, poses: Poses) -> None:
        """One more answer."""
        self.ended_s = time.monotonic()
        if not self.frames:
            self.began_s = frame.ready_s
        self.frames += 1
        self.latencies_ms.append((self.ended_s - frame.ready_s) * 1e3)
        self.dropped += frame.dropped
        if poses.ids is not None:
            self.ids.update(int(one) for one in poses.ids if one)

    @property
    def rate(self) -> float:
        """Answers a second."""
        seconds = self.ended_s - self.began_s
        return self.frames / seconds if seconds > 0 else 0.0

    def __str__(self) -> str:
        if not self.latencies_ms:
            return "no frames"
        cuts = quantiles([*self.latencies_ms, self.latencies_ms[-1]], n=20, method="inclusive")
        return (
            f"{self.frames} frames, {self.rate:.1f} a second; p50 {cuts[9]:.0f} ms, "
            f"p95 {cuts[18]:.0f} ms; {self.dropped} dropped; {len(self.ids)} people with an id"
        )


@dataclass(slots=True)
class StreamRun:
    """From frames to files and the screen.

    Attributes:
        name: of the source, in results.
        writer: takes the results; None for none.
        overlay: video file for the frames with the people drawn in; None for none.
        rate: frames per second in the header of the overlay.
        show: called with each answer, for a live display.
        window: gets each frame with the people drawn in; None for none.
        summary: of what was done.
    """

    name: str
    writer: RecordWriter | None
    overlay: Path | None
    rate: Fraction
    show: Callable[[Summary, Poses], None]
    window: Callable[[Image], None] | None = None
    summary: Summary = field(default_factory=Summary)

    def run(self, answers: Answers) -> None:
        """Work until there are no more.

        Whatever error is raised, by the answers or in writing them: the files are whole.
        """
        with ExitStack() as stack:
            video = None
            if self.overlay is not None:
                video = stack.enter_context(VideoWriter(self.overlay, self.rate, keep=True))
            failure = self._all(iter(answers), video)
        if failure is not None:
            raise failure

    def _all(self, answers: Answers, video: VideoWriter | None) -> Exception | None:
        last_s, drawn_size = -1.0, (0, 0)
        try:
            for frame, poses in answers:
                self.summary.add(frame, poses)
                height, width = frame.image.shape[:2]
                if self.writer is not None:
                    self.writer.write(
                        Record(self.name, width, height, poses, frame.number, frame.time_s)
                    )
                if video is not None or self.window is not None:
                    drawing = draw_poses(frame.image, poses)
                if self.window is not None:
                    self.window(drawing)
                if video is not None:
                    last_s = max(frame.time_s, last_s + 0.001)
                    drawn_size = drawn_size if any(drawn_size) else (width, height)
                    if (width, height) != drawn_size:  # a camera that came back with another size
                        drawing = np.asarray(cv2.resize(drawing, drawn_size), np.uint8)
                    video.write(drawing, last_s)
                self.show(self.summary, poses)
        except Exception as error:  # noqa: BLE001 - raised when the files are whole
            return error
        return None


def recorded_frames(
    sources: Sequence[Source],
    fps: float | None,
    every: int,
    stopping: Callable[[], bool],
    tell: Callable[[str], None],
) -> Iterator[TimedImage]:
    """Frames of videos, and images that count as frames, as one recording in order.

    Args:
        sources: videos and images.
        fps: of images; None counts 10.
        every: only every so many frames.
        stopping: true ends it.
        tell: called with one sentence about each source that is skipped or breaks off.

    Raises:
        MediaError: at the end, if some were skipped or there was no frame at all.
    """
    step_s = 1 / (fps or 10.0)
    number, start_s, failures = 0, 0.0, 0
    for source in sources:
        try:
            for time_s, image in _images(source):
                if stopping():
                    return
                if number % every == 0:
                    yield TimedImage(number, start_s + time_s, time.monotonic(), image)
                number, last_s = number + 1, start_s + time_s
        except MediaError as error:
            failures += 1
            tell(f"{source.name}: {error}")
        if number:
            start_s = last_s + step_s
    if failures or not number:
        raise MediaError(f"{failures} of {len(sources)} failed" if failures else "no frames in it")


def _images(source: Source) -> Iterator[tuple[float, Image]]:
    if not source.is_video:
        yield 0.0, read_picture(source)
        return
    with source.opened() as file, VideoReader(file) as reader:
        for frame in reader:
            yield frame.time_s, frame.image
