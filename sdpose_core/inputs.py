"""What callers hand in as images: arrays, files, Pillow's images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, TypeAlias

from PIL import Image as PillowImage
from PIL import ImageOps

from sdpose_core.image_files import ImageFileError, ImageLimits, decode_image, to_rgb
from sdpose_core.types import Image, check_image

ImageLike: TypeAlias = Image | str | os.PathLike[str] | PillowImage.Image
"""RGB uint8 ``(height, width, 3)``, the path of an image file, or an image of Pillow."""
_LIMITS: Final = ImageLimits()


def as_image(given: Any, name: str = "image") -> Image:
    """``given`` as RGB uint8 ``(height, width, 3)``.

    Files and images of Pillow are turned as EXIF says, transparent places show white.

    Args:
        given: An ``ImageLike``.
        name: What the messages call it.

    Raises:
        ValueError: something else, or a file that is no image; the message says which.
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
