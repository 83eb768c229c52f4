"""How one image is to be processed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdpose_core.types import Floats
from service.parameters import PoseParameters


@dataclass(frozen=True, slots=True)
class PoseOptions:
    """How one image is to be looked at. `boxes` `(N, 4)` xyxy pixels skips the detector."""

    boxes: Floats | None = None
    max_people: int | None = None
    min_score: float | None = None
    min_keypoint_score: float = 0.0
    cycles: int | Literal["auto"] | None = None
    flip_test: bool = False

    @classmethod
    def of(cls, parameters: PoseParameters, boxes: Floats | None = None) -> PoseOptions:
        """What the parameters of a request say of one image."""
        return cls(
            boxes=boxes,
            max_people=parameters.max_people,
            min_score=parameters.min_score,
            min_keypoint_score=parameters.min_keypoint_score,
            cycles=parameters.cycles,
            flip_test=parameters.flip_test,
        )
