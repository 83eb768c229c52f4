"""SDPose students, the code around them, their training and their evaluation.

>>> from sdpose_core import PoseEstimator
>>> estimator = PoseEstimator.from_pretrained()
>>> poses = estimator.estimate(["photo.jpg"])[0]

The public names are those of ``__all__``, described with examples in docs/library.md. Anything else
may change with any version:

- ``PoseEstimator``: images to people; ``Poses``: the people of one image, with their conversions
- ``Detections``: boxes; ``Skeleton``: which keypoints there are; ``load_student``: the network
- ``PeopleTracker``, ``TrackingConfig``: people over time
- ``VideoReader``, ``VideoWriter``: frames of a file; ``MediaError``: a file that cannot be used
- ``as_image``: a file or a Pillow image to an array; ``draw_poses``: skeletons drawn in
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdpose_core.checkpoints import load_student
    from sdpose_core.estimator import PoseEstimator
    from sdpose_core.io.overlay import draw_poses
    from sdpose_core.io.problems import MediaError
    from sdpose_core.io.video import VideoReader, VideoWriter
    from sdpose_core.skeleton import Skeleton
    from sdpose_core.tracking import PeopleTracker, TrackingConfig
    from sdpose_core.types import Detections, Poses
    from sdpose_core.vision.inputs import as_image

# OpenVINO reports its use over the network, from a child that it forks for every event. Without
# this module it stays silent; nothing here may call home, or fork while threads are running.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__all__ = [
    "Detections",
    "MediaError",
    "PeopleTracker",
    "PoseEstimator",
    "Poses",
    "Skeleton",
    "TrackingConfig",
    "VideoReader",
    "VideoWriter",
    "as_image",
    "draw_poses",
    "load_student",
]

_HOMES = {
    "Detections": "sdpose_core.types",
    "MediaError": "sdpose_core.io.problems",
    "PeopleTracker": "sdpose_core.tracking",
    "PoseEstimator": "sdpose_core.estimator",
    "Poses": "sdpose_core.types",
    "Skeleton": "sdpose_core.skeleton",
    "TrackingConfig": "sdpose_core.tracking",
    "VideoReader": "sdpose_core.io.video",
    "VideoWriter": "sdpose_core.io.video",
    "as_image": "sdpose_core.vision.inputs",
    "draw_poses": "sdpose_core.io.overlay",
    "load_student": "sdpose_core.checkpoints",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``sdpose --help`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion and ``help``."""
    return sorted(__all__)
