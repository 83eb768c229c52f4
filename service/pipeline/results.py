"""The people of one image, and which models found them."""

from __future__ import annotations

from dataclasses import dataclass

from sdpose_core.skeleton import KEYPOINT_NAMES
from sdpose_core.types import Image, Poses


@dataclass(frozen=True, slots=True)
class ModelNames:
    """What answered."""

    student: str
    detector: str
    backend: str
    device: str


@dataclass(frozen=True, slots=True)
class Keypoint:
    """A named place in pixels of the image as displayed, with a score in 0..1."""

    name: str
    x: float
    y: float
    score: float


@dataclass(frozen=True, slots=True)
class PoseResult:
    """The people of one image. `timings_ms` holds milliseconds a stage, `queue` and `total`.

    `image` is the decoded picture where the caller asked to keep it.
    """

    poses: Poses
    width: int
    height: int
    models: ModelNames
    timings_ms: dict[str, float]
    min_keypoint_score: float = 0.0
    image: Image | None = None

    def keypoints(self, person: int) -> list[Keypoint]:
        """The keypoints of one person that reach the asked score, in COCO order."""
        points = self.poses.keypoints[person].tolist()
        scores = self.poses.keypoint_scores[person].tolist()
        return [
            Keypoint(name, point[0], point[1], score)
            for name, point, score in zip(KEYPOINT_NAMES, points, scores, strict=True)
            if score >= self.min_keypoint_score
        ]
