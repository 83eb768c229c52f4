"""How the poses of a run are made, whatever is written of them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sdpose_core.checkpoints import checkpoint_digest
from sdpose_core.commands.predict import Estimate
from sdpose_core.detector.weights import find_detector
from sdpose_core.estimator import PoseEstimator
from sdpose_core.tracking import TrackingConfig


@dataclass(frozen=True)
class RunOptions:
    """How the poses of a run are made; plain values, which go to other machines.

    Attributes:
        pretrained: of ``PoseEstimator.from_pretrained``.
        estimate: of ``PoseEstimator.estimate``.
        track: whether people of videos get ids.
        batch_size: images or frames at once.
        readers: images read at once.
        digests: ``model_digests`` that the models must have; empty to take any.
    """

    pretrained: dict[str, Any] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)
    track: bool = False
    batch_size: int = 4
    readers: int = 4
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def tracking(self) -> TrackingConfig | None:
        """How people of a video get ids; None for no ids."""
        return TrackingConfig() if self.track else None

    def build(self) -> Estimate:
        """Loads the models, as ``load`` does."""
        return partial(self.load().estimate, **self.estimate)

    def load(self) -> PoseEstimator:
        """Loads the models; raises as ``PoseEstimator.from_pretrained`` does.

        Raises:
            ValueError: their files are not those that the run began with.
        """
        estimator = PoseEstimator.from_pretrained(**self.pretrained)
        if self.digests and (found := model_digests(self.pretrained)) != self.digests:
            name = next(key for key in found if found[key] != self.digests.get(key))
            model = name.removesuffix("_sha256")
            raise ValueError(
                f"{self.pretrained[model]}: this {model} on {socket.gethostname()} is not the one "
                "that the run began with; all machines need the same file, and it must not change"
            )
        return estimator


def model_digests(pretrained: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files of a student and a detector, whatever they are called.

    Raises:
        ValueError: there is no such file.
    """
    return {
        "student_sha256": checkpoint_digest(pretrained["student"]),
        "detector_sha256": find_detector(pretrained["detector"]).digest(),
    }


def made_with(options: RunOptions) -> dict[str, Any]:
    """The values that results depend on, for the metadata of a file (``results_schema``)."""
    classes = options.pretrained.get("detector_classes")
    return {
        "student": options.pretrained["student"],
        "detector": options.pretrained["detector"],
        **({"detector_classes": classes} if classes else {}),
        **options.digests,
        **options.estimate,
        "track": options.track,
    }
