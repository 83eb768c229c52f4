"""What passes between the pipeline and its queues."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from sdpose_core.types import Floats


@dataclass(frozen=True, slots=True)
class PoseGroup:
    """Only crops with the same options may share a batch."""

    cycles: int
    flip_test: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """When a request's work is due: its priority, whose turn it takes, and its deadline."""

    priority: int
    share: Hashable
    deadline: float | None

    @property
    def of_queue(self) -> dict[str, Any]:
        """What every queue takes by these names, so that none of it is left out in one."""
        return {"priority": self.priority, "share": self.share, "deadline": self.deadline}


@dataclass(frozen=True, slots=True)
class Posed:
    """The keypoints and scores of one image's people; the seconds are those of its batch."""

    keypoints: Floats
    scores: Floats
    pose_s: float
    keypoints_s: float
