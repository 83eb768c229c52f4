"""SDPose students, the code around them, their training and their evaluation.

>>> from sdpose_core import PoseEstimator
>>> estimator = PoseEstimator.from_pretrained()
>>> poses = estimator.estimate([image])[0]  # RGB uint8 (height, width, 3)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdpose_core.checkpoints import load_student
    from sdpose_core.estimator import PoseEstimator
    from sdpose_core.types import Detections, Poses

# OpenVINO reports its use over the network, from a child that it forks for every event. Without
# this module it stays silent; nothing here may call home, or fork while threads are running.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__all__ = ["Detections", "PoseEstimator", "Poses", "load_student"]

_HOMES = {
    "Detections": "sdpose_core.types",
    "PoseEstimator": "sdpose_core.estimator",
    "Poses": "sdpose_core.types",
    "load_student": "sdpose_core.checkpoints",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``sdpose --help`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
