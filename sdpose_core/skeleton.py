"""The COCO skeleton: 17 keypoints, their mirror pairs, their limbs and their tolerances."""

from __future__ import annotations

from typing import Final

KEYPOINT_NAMES: Final[tuple[str, ...]] = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
NUM_KEYPOINTS: Final = len(KEYPOINT_NAMES)


def _mirror(name: str) -> str:
    side, _, rest = name.partition("_")
    return {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)


FLIP_INDICES: Final[tuple[int, ...]] = tuple(
    KEYPOINT_NAMES.index(_mirror(name)) for name in KEYPOINT_NAMES
)
"""``FLIP_INDICES[i]`` is the keypoint that ``i`` becomes in a mirrored image."""

EDGES: Final[tuple[tuple[int, int], ...]] = (
    (15, 13),
    (13, 11),
    (16, 14),
    (14, 12),
    (11, 12),
    (5, 11),
    (6, 12),
    (5, 6),
    (5, 7),
    (6, 8),
    (7, 9),
    (8, 10),
    (1, 2),
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
    (3, 5),
    (4, 6),
)
"""Limbs as pairs of keypoint indices (0-based), as COCO lists them."""

UPPER_BODY: Final[tuple[int, ...]] = tuple(range(11))
LOWER_BODY: Final[tuple[int, ...]] = tuple(range(11, NUM_KEYPOINTS))

OKS_SIGMAS: Final[tuple[float, ...]] = (
    0.026,
    *(0.025,) * 2,
    *(0.035,) * 2,
    *(0.079,) * 2,
    *(0.072,) * 2,
    *(0.062,) * 2,
    *(0.107,) * 2,
    *(0.087,) * 2,
    *(0.089,) * 2,
)
"""Per-keypoint standard deviation of COCO's annotators, in units of the root of the area."""
