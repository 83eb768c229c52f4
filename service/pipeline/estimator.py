"""Protocol of the models that the service runs; implemented by `sdpose_core.PoseEstimator`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sdpose_core.skeleton import Skeleton
from sdpose_core.types import Cycles, Detections, Floats, Image, Joints, Poses

Frame = Any
"""An image where the models are; what `Estimator.upload` gives."""
Crops = Any
"""Crops: output of `Estimator.crop`, input of `Estimator.heatmaps`."""
Heatmaps = Any
"""Heatmaps: output of `Estimator.heatmaps`, input of `Estimator.keypoints`."""


class Estimator(Protocol):
    """The stages of `sdpose_core.PoseEstimator` that the pipeline drives."""

    @property
    def student_name(self) -> str:
        """The pose model."""

    @property
    def detector_name(self) -> str:
        """The person detector."""

    @property
    def backend_name(self) -> str:
        """Name of the runtime that runs the student, such as openvino."""

    @property
    def device(self) -> str:
        """Such as cpu or cuda:0."""

    @property
    def input_size(self) -> tuple[int, int]:
        """Width and height of the crops that the student sees."""

    @property
    def skeleton(self) -> Skeleton:
        """Which keypoints the student finds, K of them."""

    @property
    def cycles(self) -> Cycles:
        """How often the student's transformer may run."""

    def warm_up(self, *, max_cycles: int | None = None, detect_batch: int = 1) -> None:
        """Runs once what requests will need."""

    def alive(self) -> bool:
        """Whether the device still works; called in any thread, after something failed there."""

    def upload(self, image: Image) -> Frame:
        """The image where the models are; in any thread."""

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """The people of each frame; in the thread that owns the detector."""

    def crop(self, frame: Frame, boxes: Floats) -> Crops:
        """The people of one frame as the student's input; in any thread."""

    def heatmaps(
        self, crops: Sequence[Crops], *, flip_test: bool = False, cycles: int | None = None
    ) -> Heatmaps:
        """The student's answer for the people of all entries."""

    def keypoints(self, heatmaps: Heatmaps, crops: Sequence[Crops]) -> Sequence[Joints]:
        """The joints of each entry's people, in image pixels."""

    def answered(
        self,
        poses: Poses,
        size: tuple[int, int],
        *,
        given: bool = False,
        min_score: float | None = None,
        suppress: bool = True,
    ) -> Poses:
        """The poses to answer of those of one image of `size` (width, height) ; in any thread."""
