"""Bytes of an image file to RGB pixels as a viewer would show them.

The header is read and checked first, so that a file of a few kilobytes that claims a billion
pixels costs nothing. Plain JPEG, by far the most common, goes through OpenCV, which decodes it
to the same values as Pillow in about two thirds of the time; Pillow takes every other kind.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

from sdpose_core.types import Image
from service.errors import ErrorCode, ServiceError

ACCEPTED_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/avif",
    "image/gif",
    "image/bmp",
    "image/tiff",
)
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
_EXIF_ORIENTATION = 0x0112
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError)
_BOMBS = (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds of one image: the file in bytes, the picture in pixels."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says of itself; width and height are those of the stored raster."""

    kind: str
    mode: str
    width: int
    height: int
    orientation: int

    @property
    def decoded_bytes(self) -> int:
        """Size of the RGB array."""
        return self.width * self.height * 3


def read_header(data: bytes, limits: ImageLimits) -> Header:
    """Reads and checks the header alone.

    Raises `ServiceError` invalid_image, unsupported_media_type or payload_too_large.
    """
    if not data:
        raise ServiceError(ErrorCode.INVALID_IMAGE, "the image is empty")
    if len(data) > limits.max_bytes:
        raise ServiceError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"the image has {len(data)} bytes, more than the {limits.max_bytes} allowed",
        )
    if not _known(data):
        raise ServiceError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"not an image of an accepted type: {', '.join(ACCEPTED_TYPES)}",
        )
    try:
        with PillowImage.open(io.BytesIO(data), formats=_FORMATS) as opened:
            width, height = opened.size
            kind, mode = opened.format or "", opened.mode
            _check_pixels(width, height, limits)
            plain = kind in ("JPEG", "MPO")
            # Asking a PNG for its EXIF would decode it; Pillow turns those after decoding.
            orientation = int(opened.getexif().get(_EXIF_ORIENTATION, 1)) if plain else 1
    except _BOMBS:
        raise ServiceError(
            ErrorCode.PAYLOAD_TOO_LARGE, "the image has more pixels than allowed"
        ) from None
    except _PILLOW_ERRORS as error:
        raise _invalid(error) from None
    return Header(kind, mode, width, height, orientation)


def decode_image(data: bytes, limits: ImageLimits, header: Header | None = None) -> Image:
    """RGB uint8 `(height, width, 3)`, turned as EXIF says, first frame of an animation.

    16 bit values keep their high byte, transparent places show white. Raises `ServiceError` as
    `read_header` does, and invalid_image where the pixels do not decode to the end.
    """
    header = header or read_header(data, limits)
    if header.kind in ("JPEG", "MPO") and header.mode in ("RGB", "L"):
        return _decode_jpeg(data, header.orientation)
    try:
        with PillowImage.open(io.BytesIO(data), formats=_FORMATS) as opened:
            opened.load()
            _check_pixels(*opened.size, limits)  # a GIF frame may outgrow its header
            return _to_rgb(ImageOps.exif_transpose(opened))
    except _BOMBS:
        raise ServiceError(
            ErrorCode.PAYLOAD_TOO_LARGE, "the image has more pixels than allowed"
        ) from None
    except _PILLOW_ERRORS as error:
        raise _invalid(error) from None


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """The image as a JPEG file."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise RuntimeError(f"an image of shape {image.shape} does not encode as JPEG")
    return data.tobytes()


def _known(data: bytes) -> bool:
    """Whether the first bytes are those of an accepted type."""
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")):
        return True
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return True
    return data[4:8] == b"ftyp" and b"avi" in data[8:64]


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise ServiceError(ErrorCode.INVALID_IMAGE, "the image has no pixels")
    if width * height > limits.max_pixels:
        raise ServiceError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"the image has {width} x {height} pixels, more than the {limits.max_pixels} allowed",
        )


def _decode_jpeg(data: bytes, orientation: int) -> Image:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise _invalid(error) from None
    if pixels is None:
        raise ServiceError(ErrorCode.INVALID_IMAGE, "the image does not decode; is it truncated?")
    turn = _TURNS.get(orientation)
    upright = np.asarray(pixels, dtype=np.uint8)
    return upright if turn is None else turn(upright)


def _turned(how: int) -> Callable[[Image], Image]:
    return lambda pixels: np.asarray(cv2.rotate(pixels, how), dtype=np.uint8)


def _flipped(how: int) -> Callable[[Image], Image]:
    return lambda pixels: np.asarray(cv2.flip(pixels, how), dtype=np.uint8)


# What undoes each EXIF orientation (CIPA DC-008, tag 0x0112).
_TURNS: dict[int, Callable[[Image], Image]] = {
    2: _flipped(1),
    3: _turned(cv2.ROTATE_180),
    4: _flipped(0),
    5: lambda pixels: np.ascontiguousarray(pixels.transpose(1, 0, 2)),
    6: _turned(cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: np.ascontiguousarray(pixels[::-1, ::-1].transpose(1, 0, 2)),
    8: _turned(cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def _to_rgb(opened: PillowImage.Image) -> Image:
    if opened.mode.startswith("I"):
        return _from_16_bit(np.asarray(opened))
    if opened.has_transparency_data:
        seen = opened.convert("RGBA")
        white = PillowImage.new("RGBA", seen.size, (255, 255, 255, 255))
        opened = PillowImage.alpha_composite(white, seen)
    return np.array(opened.convert("RGB"), dtype=np.uint8)


def _from_16_bit(values: NDArray[np.generic]) -> Image:
    grey = (np.clip(values.astype(np.int64), 0, 65535) >> 8).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _invalid(error: Exception) -> ServiceError:
    detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return ServiceError(ErrorCode.INVALID_IMAGE, f"the image does not decode: {detail}")
