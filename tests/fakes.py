"""Hand-written stand-ins that answer from the pixels they are shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.types import Cycles, Detections, Floats, Image, Joints, Poses
from tests.pictures import encoded


@dataclass(frozen=True)
class FakeCrops:
    """Carries the mark of the image that it was cut from."""

    mark: int
    boxes: Floats

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass
class FakeEstimator:
    """Answers each image with its mark, so that mixed-up answers show.

    The mark of an image is the value of its top left pixel read as one number (r * 65536 +
    g * 256 + b). A black image holds nobody; another holds `people`, in boxes of the image's
    own width. Keypoint i of a person lies at (mark, i). `poison` marks fail their whole batch.
    `oddity`, where set, stands in place of each first keypoint's x. `gate` is open unless a test
    closes it to hold a batch inside the worker. `broken` names the stage that fails, and with it
    the device. `fits` is how many images or people its memory holds at once.
    """

    people: int = 1
    delay_s: float = 0.0
    poison: frozenset[int] = frozenset()
    fatal: frozenset[int] = frozenset()
    oddity: float | None = None
    broken: str = ""
    fits: int = 1000
    skeleton: Skeleton = COCO17
    detector: None = None
    student_name: str = "fake-student"
    detector_name: str = "fake-detector"
    backend_name: str = "fake"
    device: str = "cpu"
    cycles: Cycles = Cycles(1, 8, 1)  # noqa: RUF009 - a tuple
    input_size: tuple[int, int] = (192, 256)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    warmed: list[tuple[int, int]] = field(default_factory=list)
    detected: list[int] = field(default_factory=list)
    posed: list[tuple[int, bool, int]] = field(default_factory=list)
    finished: list[tuple[tuple[int, int], bool, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def warm_up(self, *, max_cycles: int | None = None, detect_batch: int = 1) -> None:
        self.warmed.append((max_cycles or 1, detect_batch))

    def alive(self) -> bool:
        return not self.broken

    def upload(self, image: Image) -> Image:
        self._reach("upload")
        return image

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        self._reach("detect", len(images))
        self.entered.set()
        assert self.gate.wait(300), "a test forgot to open the gate"
        time.sleep(self.delay_s)
        self.detected.append(len(images))
        marks = [mark_of(image) for image in images]
        if self.fatal.intersection(marks):
            raise SystemExit("the worker is told to die")
        if self.poison.intersection(marks):
            raise RuntimeError("a poisoned image")
        return [self._found(image) for image in images]

    def crop(self, image: Image, boxes: Floats) -> FakeCrops:
        self._reach("crop")
        return FakeCrops(mark_of(image), boxes)

    def heatmaps(
        self, crops: Sequence[FakeCrops], *, flip_test: bool = False, cycles: int | None = None
    ) -> list[int]:
        self._reach("heatmaps", sum(len(each) for each in crops))
        time.sleep(self.delay_s)
        self.posed.append((sum(len(each) for each in crops), flip_test, cycles or 1))
        return [each.mark for each in crops]

    def keypoints(self, heatmaps: list[int], crops: Sequence[FakeCrops]) -> list[Joints]:
        self._reach("keypoints")
        answers = [
            _marked_keypoints(mark, len(each)) for mark, each in zip(heatmaps, crops, strict=True)
        ]
        if self.oddity is not None:
            for joints in answers:
                joints.points[:, 0, 0] = self.oddity
        return answers

    def answered(
        self,
        poses: Poses,
        size: tuple[int, int],
        *,
        given: bool = False,
        min_score: float | None = None,
        suppress: bool = True,
    ) -> Poses:
        self.finished.append((size, given, suppress))
        if given or min_score is None:
            return poses
        return poses.select(poses.scores >= min_score)

    def _reach(self, stage: str, count: int = 1) -> None:
        if stage == self.broken:
            raise RuntimeError("an illegal memory access was encountered")
        if count > self.fits:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def _found(self, image: Image) -> Detections:
        if mark_of(image) == 0:
            return Detections.empty()
        height, width = image.shape[:2]
        box = np.array([[0, 0, width, height]], np.float32)
        scores = np.linspace(0.9, 0.5, self.people, dtype=np.float32)
        return Detections(np.repeat(box, self.people, axis=0), scores)


class OutOfMemoryError(RuntimeError):
    """Stands for `torch.OutOfMemoryError`, which is a RuntimeError too."""


def mark_of(image: Image) -> int:
    """The number that the top left pixel spells."""
    red, green, blue = (int(value) for value in image[0, 0])
    return red * 65536 + green * 256 + blue


def marked_image(mark: int, width: int = 8, height: int = 8) -> Image:
    """A plain image that carries `mark`."""
    colour = (mark >> 16, mark >> 8 & 255, mark & 255)
    return np.full((height, width, 3), colour, np.uint8)


def marked_png(mark: int) -> bytes:
    """The file of a plain image that carries `mark`."""
    return encoded(marked_image(mark), "PNG")


def _marked_keypoints(mark: int, people: int) -> Joints:
    points = np.zeros((people, 17, 2), np.float32)
    points[:, :, 0] = mark
    points[:, :, 1] = np.arange(17)
    scores = np.tile(np.linspace(1, 0.2, 17, dtype=np.float32), (people, 1))
    return Joints(points, scores, (1 + scores) / 2)


PNG = marked_png(0x010203)
