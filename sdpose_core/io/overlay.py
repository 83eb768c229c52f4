"""Drawing poses on images."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdpose_core.files.whole_file import whole_file
from sdpose_core.skeleton import Skeleton
from sdpose_core.types import Floats, Image, Poses, check_image

# Red, green and blue, as in our images.
LEFT: Final = (255, 138, 36)
RIGHT: Final = (40, 150, 255)
MIDDLE: Final = (120, 230, 120)
BOX: Final = (235, 235, 235)
_RIM: Final = (20, 20, 20)
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX

_COLOURS: Final = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}


def _side_of(edge: tuple[int, int], skeleton: Skeleton) -> str:
    """A limb belongs to a side when an end does and the other end is not on the other side."""
    sides = {skeleton.sides[end] for end in edge} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


@lru_cache(maxsize=16)
def _limbs(skeleton: Skeleton) -> dict[str, list[tuple[int, int]]]:
    return {
        side: [edge for edge in skeleton.edges if _side_of(edge, skeleton) == side]
        for side in _COLOURS
    }


def line_width(image: Image) -> int:
    """Pixels of a limb's line of a large person in an image of this size: 2 up to 500 pixels."""
    shortest: int = min(image.shape[:2])
    return max(2, round(shortest / 200))


def line_widths(image: Image, boxes: Floats) -> list[int]:
    """Pixels of each person's lines, for boxes ``(N, 4)``: a 60th of the person's longer side.

    At most ``line_width``; at least a third of it, so that lines stay visible when the whole
    image is.
    """
    most = line_width(image)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    widths: list[int] = (
        np.clip(np.rint(sides / 60), max(1, round(most / 3)), most).astype(int).tolist()
    )
    return widths


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
        image: RGB uint8 ``(height, width, 3)``; not changed.
        poses: in pixels of ``image``.
        min_keypoint_score: keypoints below it are left out, and the limbs that end in them.
        boxes: draw the person boxes too.
        thickness: pixels of a limb's line; None fits it to person and image (``line_widths``).

    Raises:
        ValueError: ``image`` is not an RGB uint8 array.
    """
    canvas = check_image(image).copy()
    if not len(poses):
        return canvas
    widths = [thickness] * len(poses) if thickness else line_widths(image, poses.boxes)
    if boxes:
        for (left, top, right, bottom), width in zip(
            _drawable(poses.boxes, image), widths, strict=True
        ):
            cv2.rectangle(canvas, (left, top), (right, bottom), BOX, max(1, width // 2))
    # Half a pixel on, because fractions are cut off.
    people = _drawable(poses.keypoints + 0.5, image)
    shown = poses.keypoint_scores >= min_keypoint_score
    limbs = _limbs(poses.skeleton)
    for side, colour in _COLOURS.items():
        for points, visible, width in zip(people, shown, widths, strict=True):
            for a, b in limbs[side]:
                if visible[a] and visible[b]:
                    cv2.line(canvas, points[a], points[b], colour, width)
    for side, colour in _COLOURS.items():
        joints = [
            (points[joint], width)
            for points, visible, width in zip(people, shown, widths, strict=True)
            for joint, own in enumerate(poses.skeleton.sides)
            if own == side and visible[joint]
        ]
        for rim, shade in ((1, _RIM), (0, colour)):
            for joint, width in joints:
                cv2.circle(canvas, joint, width + rim, shade, cv2.FILLED)
    if poses.ids is not None:
        _draw_ids(canvas, poses, thickness or line_width(image))
    return canvas


def _draw_ids(canvas: Image, poses: Poses, width: int) -> None:
    """The id of each person above the box, or in its corner if that is beyond the image."""
    assert poses.ids is not None
    scale = 0.2 * width
    for (left, top, _, _), one in zip(_drawable(poses.boxes, canvas), poses.ids, strict=True):
        if one <= 0:
            continue
        (wide, high), _ = cv2.getTextSize(str(one), _FONT, scale, 1)
        above = top - high - 2 * width
        right = left + wide + 2 * width
        cv2.rectangle(canvas, (left, above), (right, top), _RIM, cv2.FILLED)
        place = (left + width, above + width + high)
        cv2.putText(canvas, str(one), place, _FONT, scale, BOX, 1, cv2.LINE_AA)


def _drawable(points: Floats, image: Image) -> NDArray[np.int32]:
    """Whole pixels, those far outside the image brought to where OpenCV can hold them."""
    reach = 4 * max(image.shape[:2])
    return np.clip(points, -reach, reach).astype(np.int32)


def save_picture(path: Path, image: Image) -> None:
    """Write RGB uint8 ``(height, width, 3)`` as what the name ends in; folders are made.

    Raises:
        OSError: it cannot be written, or does not encode.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"the drawing does not encode as {path.suffix}")
    with whole_file(path) as partial:
        partial.write_bytes(data.tobytes())
