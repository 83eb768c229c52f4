"""From images to poses: the object that serving, prediction and evaluation all run."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sdpose_core.checkpoints import DEFAULT_STUDENT, load_student
from sdpose_core.detector import PersonDetector, as_detector, load_detector
from sdpose_core.hardware.backends import PoseBackend, make_backend
from sdpose_core.hardware.batches import run_in_batches
from sdpose_core.hardware.frames import Frame, Uploader, is_alive
from sdpose_core.hardware.keypoints import KeypointDecoder
from sdpose_core.hardware.processes import loading
from sdpose_core.model import PRESETS, ScoreHead, StudentConfig, ranking_of
from sdpose_core.skeleton import Skeleton
from sdpose_core.types import (
    NO_DETECTOR,
    Cycles,
    Detections,
    Image,
    Joints,
    Poses,
    Regions,
    given_boxes,
)
from sdpose_core.vision.crops import PersonCrops, crop_image, crop_tensor, joined
from sdpose_core.vision.geometry import regions_from_boxes
from sdpose_core.vision.heatmaps import MAX_REFINEMENT, merge_flip, mirror
from sdpose_core.vision.inputs import ImageLike, as_image, check_request
from sdpose_core.vision.people import LOWEST_BOX, PersonScores, people_of, worth_posing
from sdpose_core.vision.ranking import mean_scores

# Height and width. A detector's first run at a new shape takes longer than the next ones.
USUAL_ASPECTS: Final = ((480, 640), (640, 480), (360, 640), (640, 360), (640, 640))


class PoseEstimator:
    """Finds people and their keypoints. Any number of threads may call it at the same time.

    Args:
        backend: The student, ready to run.
        detector: Finds the people, or its name; without one every call needs ``boxes``.
        config: The student's sizes and cycles; None uses the backend's, else SDPose-T's.
        student_name: The student's name in answers.
        scores: Computes keypoint scores and visibility from all peaks and positions of a person;
            without one each score is the peak of its heatmap, at most 1.
        rank: Scores of people; by default the box's times the mean of the joints', as published.
        max_refinement: Bound of the decoder's sub-pixel step, heatmap pixels; None is the published
            protocol, for results comparable with published ones: peaks are scores above 1, too.
        max_batch: Maximum crops per batch, which bounds a GPU's memory; None uses the backend's.
    """

    def __init__(
        self,
        backend: PoseBackend,
        detector: PersonDetector | str | os.PathLike[str] | None = None,
        *,
        config: StudentConfig | None = None,
        student_name: str = "student",
        scores: ScoreHead | None = None,
        rank: PersonScores = mean_scores,
        max_refinement: float | None = MAX_REFINEMENT,
        max_batch: int | None = None,
    ) -> None:
        self.backend = backend
        self.detector = as_detector(detector, LOWEST_BOX)
        self.config = config or getattr(backend, "config", None) or PRESETS["sdpose-t"]
        self.student_name = student_name
        self.answered = partial(people_of, rank=rank)
        """The last step: who of the poses of one image is answered (``people.people_of``)."""
        self._recipe: dict[str, Any] | None = None
        self._batch_sizes = tuple(
            size for size in backend.batch_sizes if max_batch is None or size <= max_batch
        )
        if not self._batch_sizes:
            raise ValueError(f"max_batch: expected at least 1, got {max_batch}")
        self._upload = Uploader(backend.device)
        self._decode = KeypointDecoder(
            backend,
            self._batch_sizes,
            scores=scores,
            max_refinement=max_refinement,
        )

    @classmethod
    def from_pretrained(
        cls,
        student: str | os.PathLike[str] = DEFAULT_STUDENT,
        detector: str | os.PathLike[str] = "embedded",
        device: str = "auto",
        *,
        backend: str = "auto",
        precision: str = "auto",
        allow_untrained: bool = False,
        max_refinement: float | None = MAX_REFINEMENT,
        max_batch: int | None = None,
        detector_size: int = 640,
        detector_classes: str | Sequence[str | int] = (),
    ) -> PoseEstimator:
        """An estimator from names or files.

        Args:
            student: A preset with embedded weights, or a checkpoint file (``load_student``).
            detector: ``"embedded"``, a name or file (``load_detector``), or ``"none"``.
            device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
            backend: ``"auto"``, ``"torch"`` or ``"openvino"`` (CPU only).
            precision: Of student and detector: ``"auto"``, for each the fastest accurate one, or
                one that the backend offers: ``"fp32"``, ``"fp16"``, ``"bf16"``.
            allow_untrained: Use random weights if a preset has none (for speed measurements).
            max_refinement: As in the class.
            max_batch: As in the class.
            detector_size: Longest side of the detector's input, a multiple of 32.
            detector_classes: What to look for, names or numbers of its file; by default person.

        Raises:
            ValueError: an unknown name or a file that cannot be used (``CheckpointError`` and
                ``DetectorError`` are ``ValueError``).
            ForkedError: networks had been loaded before this process was forked.
        """
        loading()
        recipe = {key: value for key, value in locals().items() if key != "cls"}
        name = os.fspath(student)
        network = load_student(name, allow_untrained=allow_untrained)
        # A copy: a backend may convert its student to half precision.
        scores, rank = copy.deepcopy(network.scores), ranking_of(network.people, network.config)
        pose = make_backend(network, backend, device, precision)
        people = None
        if os.fspath(detector) != NO_DETECTOR:
            people = load_detector(
                detector,
                device=str(pose.device),
                backend=pose.name,
                precision=precision,
                min_score=LOWEST_BOX,
                input_size=detector_size,
                classes=detector_classes,
            )
        made = cls(
            pose,
            people,
            config=network.config,
            student_name=os.path.basename(name),
            scores=scores,
            rank=rank,
            max_refinement=max_refinement,
            max_batch=max_batch,
        )
        made._recipe = recipe
        return made

    def __reduce__(self) -> tuple[Callable[..., PoseEstimator], tuple[()]]:
        """Pickled is what to load, not what is loaded: the other process loads it itself."""
        if self._recipe is None:
            raise TypeError("only an estimator of from_pretrained can be pickled")
        return partial(type(self).from_pretrained, **self._recipe), ()

    @property
    def detector_name(self) -> str:
        """The detector's name, ``"none"`` without one."""
        return NO_DETECTOR if self.detector is None else self.detector.name

    @property
    def backend_name(self) -> str:
        """Name of the runtime of the student: ``"torch"`` or ``"openvino"``."""
        return self.backend.name

    @property
    def device(self) -> str:
        """Where it runs, such as ``"cpu"`` or ``"cuda:0"``."""
        return str(self.backend.device)

    @property
    def precision(self) -> str:
        """The student's precision."""
        return self.backend.precision

    @property
    def input_size(self) -> tuple[int, int]:
        """Width and height of the crops that the student sees."""
        return self.config.view.input_size

    @property
    def skeleton(self) -> Skeleton:
        """Which keypoints the student finds."""
        return self.config.skeleton

    @property
    def cycles(self) -> Cycles:
        """How often the student's transformer may run."""
        return self.config.cycles

    def warm_up(self, *, max_cycles: int | None = None, detect_batch: int = 1) -> None:
        """Run everything once on black images, so that the first request is not slow.

        The detector runs at the usual aspects, on 1, 2, 4 and so on to ``detect_batch`` images; the
        student at each of its batch sizes with the minimum to ``max_cycles`` cycles (None: the
        served number), and with the flip test.
        """
        most = self.cycles.served if max_cycles is None else min(max_cycles, self.cycles.highest)
        if self.detector is not None:
            counts = sorted({detect_batch, *(2**n for n in range(detect_batch.bit_length()))})
            for shape in USUAL_ASPECTS:
                frame = self.upload(np.zeros((*shape, 3), np.uint8))
                for count in counts:
                    self.detect([frame] * count)
        frame = self.upload(np.zeros((*USUAL_ASPECTS[0], 3), np.uint8))
        for size in self._batch_sizes:
            crops = [self.crop(frame, [[0, 0, 300, 400]] * size)]
            for cycles in range(self.cycles.lowest, most + 1):
                self.pose(crops, cycles=cycles)
        self.pose([self.crop(frame, [[0, 0, 300, 400]])], flip_test=True)

    def estimate(
        self,
        images: Sequence[ImageLike],
        boxes: Sequence[ArrayLike] | None = None,
        *,
        flip_test: bool = False,
        cycles: int | None = None,
        max_people: int | None = None,
        min_score: float | None = None,
        suppress: bool = True,
    ) -> list[Poses]:
        """The people of each image, most certain first.

        Args:
            images: RGB uint8 arrays ``(height, width, 3)`` of any sizes, paths or Pillow images.
            boxes: One ``(N, 4)`` xyxy array per image, in pixels; the detector is not run, each
                box gets one pose and the order is kept.
            flip_test: Average with the mirrored crop: slightly better, at twice the time.
            cycles: How often the student's transformer runs; None is the student's own number.
            max_people: Keep only this many of the most certain people of each image.
            min_score: All detected people who score this, 0..1; None: those with likely joints.
            suppress: Leave out copies of a better scored person; people of ``boxes`` stay.

        Raises:
            ValueError: an image or a box of the wrong kind or shape, or a number out of range.
            OSError: a file that cannot be read.
        """
        self.cycles.check(cycles)
        check_request(images, boxes, max_people, min_score)
        frames = [self.upload(as_image(one, f"images[{i}]")) for i, one in enumerate(images)]
        if boxes is None:
            people = [worth_posing(one, max_people) for one in self.detect(frames)]
        else:
            given = (given_boxes(array, f"boxes[{i}]") for i, array in enumerate(boxes))
            people = [one.select(limit=max_people) for one in given]
        crops = [self.crop(frame, one.boxes) for frame, one in zip(frames, people, strict=True)]
        results = self.pose(crops, flip_test=flip_test, cycles=cycles)
        return [
            self.answered(
                Poses(
                    joints.points,
                    joints.scores,
                    one.boxes,
                    one.scores,
                    skeleton=self.skeleton,
                    visibility=joints.visibility,
                ),
                (int(frame.shape[1]), int(frame.shape[0])),
                given=boxes is not None,
                min_score=min_score,
                suppress=suppress,
            ).first(max_people)
            for frame, one, joints in zip(frames, people, results, strict=True)
        ]

    def alive(self) -> bool:
        """Whether the device still works; after a GPU's fault only a new process gets it back."""
        return is_alive(self.backend.device)

    def upload(self, image: Image) -> Frame:
        """The image on the models' device: unchanged on a CPU, copied once to a GPU."""
        return self._upload(image)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """The people of each frame, most certain first.

        Raises:
            ValueError: this estimator has no detector.
        """
        if self.detector is None:
            raise ValueError("this estimator has no detector: pass boxes")
        return self.detector.detect(frames) if frames else []

    def crop(self, frame: Frame, boxes: ArrayLike) -> PersonCrops:
        """Cut the people ``boxes`` (N, 4) xyxy out of one frame; cheap, in any thread."""
        regions = regions_from_boxes(boxes, self.config.view)
        if isinstance(frame, Tensor):
            return PersonCrops(crop_tensor(frame, regions), regions)
        pixels = torch.from_numpy(crop_image(frame, regions)).permute(0, 3, 1, 2)
        if self.backend.device.type != "cpu":
            pixels = pixels.to(self.backend.device, torch.float32)
        return PersonCrops(pixels, regions)

    def pose(
        self, crops: Sequence[PersonCrops], *, flip_test: bool = False, cycles: int | None = None
    ) -> list[Joints]:
        """Keypoints of crops from any number of images, in as few batches as possible.

        For each entry of ``crops`` the joints of its people.
        """
        heatmaps = self.heatmaps(crops, flip_test=flip_test, cycles=cycles)
        return self.keypoints(heatmaps, crops)

    def heatmaps(
        self, crops: Sequence[PersonCrops], *, flip_test: bool = False, cycles: int | None = None
    ) -> Tensor:
        """The first half of ``pose``: the student's answer.

        Returns:
            ``(N, K, *heatmap_size)`` float32 on the student's device, for all people in order. A
            GPU may still be computing it.
        """
        pixels = [one.pixels for one in crops if len(one)]
        if not pixels:
            size = self.config.heatmap_size
            return torch.zeros((0, len(self.skeleton), *size), device=self.backend.device)
        people = joined(pixels)
        answers = partial(
            run_in_batches,
            partial(self.backend.run, cycles=self.cycles.check(cycles)),
            sizes=self._batch_sizes,
            pads=self.backend.pads,
        )
        heatmaps = answers(people)
        if not flip_test:
            return heatmaps
        mirrored = mirror(people, aligned=self.config.aligned_flip)
        return merge_flip(heatmaps, answers(mirrored), self.skeleton.mirror)

    def keypoints(self, heatmaps: Tensor, crops: Sequence[PersonCrops]) -> list[Joints]:
        """The second half of ``pose``: decodes what ``heatmaps`` returned for these crops."""
        counts = [len(one) for one in crops]
        if sum(counts) == 0:
            empty = np.zeros((0, len(self.skeleton), 2), np.float32)
            return [Joints(empty, empty[..., 0]) for _ in crops]
        regions = Regions(
            np.concatenate([one.regions.centres for one in crops]),
            np.concatenate([one.regions.sizes for one in crops]),
            self.config.view,
        )
        joints = self._decode(heatmaps, regions)
        ends = np.cumsum(counts)[:-1]
        parts = ([None] * len(crops) if all_ is None else np.split(all_, ends) for all_ in joints)
        return [Joints(*part) for part in zip(*parts, strict=True)]
