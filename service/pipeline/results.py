"""Values that the pipeline passes to its queues, and its result: the people of one image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sdpose_core.io.people import people_json
from sdpose_core.types import Image, Joints, Poses


@dataclass(frozen=True, slots=True)
class PoseGroup:
    """Only crops with the same options may share a batch."""

    cycles: int
    flip_test: bool


@dataclass(frozen=True, slots=True)
class Posed:
    """The joints of one image's people; the seconds are those of its batch."""

    joints: Joints
    pose_s: float
    keypoints_s: float


@dataclass(frozen=True, slots=True)
class ModelNames:
    """Names of the models that answered."""

    student: str
    detector: str
    backend: str
    device: str


@dataclass(frozen=True, slots=True)
class PoseResult:
    """The people of one image. `timings_ms` holds milliseconds a stage, `queue` and `total`.

    `image` is the decoded image if it was kept.
    """

    poses: Poses
    width: int
    height: int
    models: ModelNames
    timings_ms: dict[str, float]
    min_keypoint_score: float = 0.0
    image: Image | None = None

    def answer(self, request_id: str) -> dict[str, Any]:
        """The values of a `sdpose_client.answers.PoseAnswer`; people as `people_json` has them."""
        return {
            "people": people_json(self.poses, self.min_keypoint_score),
            "image": {"width": self.width, "height": self.height},
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
            "models": asdict(self.models),
            "request_id": request_id,
        }
