"""Image files of many kinds, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image as PillowImage
from ultralytics.utils import ASSETS

from sdpose_core.types import Image
from sdpose_core.vision.image_files import ImageLimits, decode_image

# Four corners that tell apart all eight orientations.
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(width: int = 48, height: int = 32) -> Image:
    """Red, green, blue and white quarters: top left, top right, bottom left, bottom right."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = WHITE
    return picture


def encoded(picture: PillowImage.Image | Image, kind: str, **options: object) -> bytes:
    """The picture as a file of one kind, such as PNG."""
    opened = PillowImage.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    file = io.BytesIO()
    opened.save(file, kind, **options)
    return file.getvalue()


def jpeg_with_orientation(orientation: int, kind: str = "JPEG") -> bytes:
    """`corners()` stored so that a viewer that honours EXIF shows it upright."""
    upright = PillowImage.fromarray(corners())
    # Each stored raster is the upright one under the inverse of what the viewer will do.
    stored = {
        1: upright,
        2: upright.transpose(PillowImage.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(PillowImage.Transpose.ROTATE_180),
        4: upright.transpose(PillowImage.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(PillowImage.Transpose.TRANSPOSE),
        6: upright.transpose(PillowImage.Transpose.ROTATE_90),
        7: upright.transpose(PillowImage.Transpose.TRANSVERSE),
        8: upright.transpose(PillowImage.Transpose.ROTATE_270),
    }[orientation]
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"exif": exif}
    if kind == "JPEG":
        options.update(quality=95, subsampling=0)
    return encoded(stored, kind, **options)


def png_bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of a few hundred bytes whose header claims a huge picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(width)))
        + chunk(b"IEND", b"")
    )


def photograph(name: str) -> Image:
    """One of ultralytics' photographs, `bus.jpg` or `zidane.jpg`."""
    return decode_image((ASSETS / name).read_bytes(), ImageLimits())


def animated_gif() -> bytes:
    """Two frames: `corners()`, then black."""
    first = PillowImage.fromarray(corners())
    second = PillowImage.new("RGB", first.size)
    return encoded(first, "GIF", save_all=True, append_images=[second])
