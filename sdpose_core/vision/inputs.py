"""Images of callers: arrays, files, Pillow's images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from numpy.typing import ArrayLike
from PIL import Image as PillowImage
from PIL import ImageOps

from sdpose_core.types import Image, check_image
from sdpose_core.vision.image_files import ImageFileError, ImageLimits, decode_image, to_rgb

ImageLike: TypeAlias = Image | str | os.PathLike[str] | PillowImage.Image
"""RGB uint8 ``(height, width, 3)``, the path of an image file, or an image of Pillow."""
_LIMITS: Final = ImageLimits()


def as_image(given: Any, name: str = "image") -> Image:
    """``given`` as RGB uint8 ``(height, width, 3)``.

    Files and images of Pillow are turned as in EXIF, transparent places show white.

    Args:
        given: An ``ImageLike``.
        name: What the messages call it.

    Raises:
        ValueError: something else, or a file that is no image; the message names it.
        OSError: a file that cannot be read.
    """
    try:
        if isinstance(given, str | os.PathLike):
            name = f"{name}: {given}"
            return decode_image(Path(given).read_bytes(), _LIMITS)
        if isinstance(given, PillowImage.Image):
            return check_image(to_rgb(ImageOps.exif_transpose(given)), name)
    except ImageFileError as error:
        raise ValueError(f"{name}: {error}") from None
    return check_image(given, name)


def check_request(
    images: object,
    boxes: Sequence[ArrayLike] | None,
    max_people: int | None,
    min_score: float | None,
) -> None:
    """Raises ``ValueError`` for what ``PoseEstimator.estimate`` cannot take, in one sentence."""
    if max_people is not None and max_people < 0:
        raise ValueError(f"max_people: expected at least 0, got {max_people}")
    if min_score is not None and not 0 <= min_score <= 1:
        raise ValueError(f"min_score: expected 0 to 1, got {min_score}")
    if not isinstance(images, Sequence) or isinstance(images, str):
        raise ValueError("images: expected a sequence of images, got one; pass [image]")
    if boxes is not None and len(images) != len(boxes):
        expected = f"expected one array for each of the {len(images)} images"
        raise ValueError(f"boxes: {expected}, got {len(boxes)}")
