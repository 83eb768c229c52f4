"""Drawing poses on images."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import supervision as sv

from sdpose_core.skeleton import EDGES, KEYPOINT_NAMES
from sdpose_core.types import Floats, Image, Poses, check_image


def _colour(red: int, green: int, blue: int) -> sv.Color:
    # Supervision writes blue first, our images have red first.
    return sv.Color(r=blue, g=green, b=red)


LEFT: Final = _colour(255, 138, 36)
RIGHT: Final = _colour(40, 150, 255)
MIDDLE: Final = _colour(120, 230, 120)
BOX: Final = _colour(235, 235, 235)
_RIM: Final = _colour(20, 20, 20)

_SIDES: Final = tuple(name.split("_")[0] for name in KEYPOINT_NAMES)


def _side_of(edge: tuple[int, int]) -> str:
    """A limb belongs to a side when an end does and the other end is not on the other side."""
    sides = {_SIDES[end] for end in edge} - {"nose"}
    return sides.pop() if len(sides) == 1 else "middle"


# Supervision counts keypoints from 1.
_LIMBS: Final = {
    side: [(a + 1, b + 1) for a, b in EDGES if _side_of((a, b)) == side]
    for side in ("left", "right", "middle")
}
_COLOURS: Final = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}


def line_width(image: Image) -> int:
    """Pixels of a limb's line for an image of this size: 2 up to about 400 pixels, then more."""
    shortest: int = min(image.shape[:2])
    return max(2, round(shortest / 200))


def draw_poses(
    image: Image,
    poses: Poses,
    *,
    min_keypoint_score: float = 0.3,
    boxes: bool = False,
    thickness: int | None = None,
) -> Image:
    """A copy of the image with the skeletons on it.

    The person's left is orange, the right blue, what joins both sides green. Ids over time stand
    above their people.

    Args:
        image: RGB uint8 ``(height, width, 3)``; left as it is.
        poses: in pixels of ``image``.
        min_keypoint_score: keypoints below it are left out, and the limbs that end in them.
        boxes: draw the person boxes too.
        thickness: pixels of a limb's line; fitted to the image's size if None.

    Raises:
        ValueError: ``image`` is not an RGB uint8 array.
    """
    canvas = check_image(image).copy()
    if not len(poses):
        return canvas
    width = thickness or line_width(image)
    if boxes:
        people = sv.Detections(xyxy=poses.boxes, class_id=np.zeros(len(poses), np.int64))
        canvas = sv.BoxAnnotator(color=BOX, thickness=max(1, width // 2)).annotate(canvas, people)
    points = sv.KeyPoints(
        # Half a pixel on, because the drawing cuts fractions off.
        xy=_drawable(poses.keypoints + 0.5, image),
        visible=poses.keypoint_scores >= min_keypoint_score,
    )
    for side, limbs in _LIMBS.items():
        annotator = sv.EdgeAnnotator(color=_COLOURS[side], thickness=width, edges=limbs)
        canvas = annotator.annotate(canvas, points)
    shown = points.visible
    for side, colour in _COLOURS.items():
        mine = np.array([one == side or (one == "nose" and side == "middle") for one in _SIDES])
        joints = replace(points, visible=shown & mine)
        canvas = sv.VertexAnnotator(color=_RIM, radius=width + 1).annotate(canvas, joints)
        canvas = sv.VertexAnnotator(color=colour, radius=width).annotate(canvas, joints)
    if poses.ids is not None:
        _draw_ids(canvas, poses, width)
    return np.asarray(canvas, np.uint8)


def _draw_ids(canvas: Image, poses: Poses, width: int) -> None:
    """The id of each person above the box, or in its corner where that is beyond the image."""
    assert poses.ids is not None
    known = poses.ids > 0
    if not known.any():
        return
    people = sv.Detections(
        xyxy=_drawable(poses.boxes[known], canvas), class_id=np.zeros(int(known.sum()), np.int64)
    )
    labels = [f"{one}" for one in poses.ids[known]]
    sv.LabelAnnotator(
        color=_RIM, text_color=BOX, text_scale=0.2 * width, text_padding=width
    ).annotate(canvas, people, labels)


def _drawable(points: Floats, image: Image) -> Floats:
    """Points far outside the image brought to where OpenCV's whole numbers can hold them."""
    reach = 4 * max(image.shape[:2])
    return np.asarray(np.clip(points, -reach, reach), np.float32)
