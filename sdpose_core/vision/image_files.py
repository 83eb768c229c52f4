"""Bytes of an image file to RGB pixels as a viewer would show them.

The header is read and checked first, so that a file of a few kilobytes that claims a billion
pixels costs nothing. Plain JPEG, by far the most common, goes through OpenCV, which decodes it
to the same values as Pillow in about two thirds of the time; Pillow takes every other kind.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from sdpose_core.messages import error_line
from sdpose_core.types import Image

ACCEPTED_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/avif",
    "image/gif",
    "image/bmp",
    "image/tiff",
)


class ImageFileError(ValueError):
    """An image file that cannot be used; the message is one sentence, safe to show to its sender.

    `code` is the word of the service's error vocabulary for it.
    """

    code = "invalid_image"


class UnsupportedImageError(ImageFileError):
    """Not a file of an accepted type."""

    code = "unsupported_media_type"


class ImageTooLargeError(ImageFileError):
    """More bytes or pixels than allowed."""

    code = "payload_too_large"


# libjpeg's own scaling; OpenCV's names for it are flags to add, whatever they say of grey.
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
REDUCTIONS = (2, 4, 8)
"""By how much a JPEG may be decoded smaller."""
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_EXIF_ORIENTATION = 0x0112
_NEW_SUBFILE_TYPE = 254  # of TIFF; its first bit: a smaller version of another image
_TILE = 256
_PEAK_BYTES = {
    "JPEG": 12,  # CMYK; what OpenCV takes needs less
    "MPO": 12,
    "PNG": 8,
    "WEBP": 16,
    "AVIF": 24,
    "GIF": 6,
    "BMP": 8,
    "TIFF": 12,
}
"""Most memory a pixel while a kind decodes, the image itself among it; the file is not.

Of the worst files of each kind, measured as peak resident memory: large strips, alpha, progressive
scans, animations. But AVIF: 15 measured with 10 bit 4:2:0 and film grain, and 9 more by reckoning
for 4:4:4 and alpha of that depth, of which the decoder keeps two copies. Of a WebP
file Pillow holds two copies besides; decode threads times twice the largest file bounds them.
"""
_PEAK_BYTES_OPENCV = 9  # progressive 4:4:4; 6 otherwise
_BOMBS = (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds of one image: the file in bytes, the image in pixels."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


@dataclass(frozen=True, slots=True)
class Header:
    """Header of an image file; width and height are those of the stored raster."""

    kind: str
    mode: str
    width: int
    height: int
    orientation: int

    @property
    def peak_bytes(self) -> int:
        """Memory that decoding may need at its height; the RGB array that stays is smaller."""
        a_pixel = _PEAK_BYTES_OPENCV if self.for_opencv else _PEAK_BYTES[self.kind]
        return self.width * self.height * a_pixel

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height of the upright image."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)

    @property
    def for_opencv(self) -> bool:
        """Whether OpenCV decodes it, not Pillow."""
        return self.kind in ("JPEG", "MPO") and self.mode in ("RGB", "L")


def read_header(data: bytes, limits: ImageLimits) -> Header:
    """Reads and checks the header alone.

    Raises `ImageFileError`, or its kinds `UnsupportedImageError` and `ImageTooLargeError`.
    """
    if not data:
        raise ImageFileError("the image is empty")
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            f"the image has {len(data)} bytes, more than the {limits.max_bytes} allowed",
        )
    if is_heic(data):
        raise UnsupportedImageError(
            "HEIC, the format of phones, is not read: save it as JPEG (on an iPhone: Settings, "
            "Camera, Formats, Most Compatible)"
        )
    if not is_image(data):
        raise UnsupportedImageError(
            f"not an image of an accepted type: {', '.join(ACCEPTED_TYPES)}",
        )
    with _faults_of_the_file(), PillowImage.open(io.BytesIO(data), formats=_FORMATS) as opened:
        width, height = opened.size
        kind, mode = opened.format or "", opened.mode
        _check_pixels(width, height, limits)
        # Reading a PNG's EXIF would decode it; other kinds are checked after decoding.
        orientation = _orientation(opened) if kind in ("JPEG", "MPO") else 1
    return Header(kind, mode, width, height, orientation)


def decode_image(
    data: bytes, limits: ImageLimits, header: Header | None = None, *, reduction: int = 1
) -> Image:
    """RGB uint8 `(height, width, 3)`, turned as in EXIF, first frame of an animation.

    16 bit values keep their high byte, transparent places show white. `reduction`, 1 or one of
    `REDUCTIONS`, is for JPEG files `for_opencv` only: each pixel is the mean of a block of so many
    by so many. Raises as `read_header` does, and `ImageFileError` if the pixels do not decode to
    the end.
    """
    header = header or read_header(data, limits)
    if header.for_opencv:
        return _decode_jpeg(data, header.orientation, reduction)
    if reduction != 1:
        raise ValueError(f"reduction: a file of kind {header.kind} has none, got {reduction}")
    return _upright(*_decode_with_pillow(data, limits))


def _decode_with_pillow(data: bytes, limits: ImageLimits) -> tuple[Image, int]:
    """The stored pixels and the EXIF orientation; on return Pillow's own copies are gone."""
    with _faults_of_the_file(), PillowImage.open(io.BytesIO(data), formats=_FORMATS) as opened:
        if opened.format == "TIFF" and opened.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 1:  # type: ignore[attr-defined]
            raise UnsupportedImageError(
                "a camera's raw file, whose first image is a thumbnail: save it as JPEG or TIFF"
            )
        opened.load()
        _check_pixels(*opened.size, limits)  # a GIF frame may outgrow its header
        orientation = _orientation(opened)  # 1 for a TIFF, which Pillow has turned by now
        return to_rgb(opened), orientation


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """The image as a JPEG file."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise RuntimeError(f"an image of shape {image.shape} does not encode as JPEG")
    return data.tobytes()


def is_image(data: bytes) -> bool:
    """Whether the first bytes (64 or more) are those of an accepted type."""
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")):
        return True
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return True
    return data[4:8] == b"ftyp" and b"avi" in data[8:64]


def is_heic(data: bytes) -> bool:
    """Whether the first bytes (64 or more) are those of a HEIC file, which is not read.

    FFmpeg would open it as a video of its first tile.
    """
    brands = {data[at : at + 4] for at in range(8, min(64, int.from_bytes(data[:4])), 4)}
    return data[4:8] == b"ftyp" and not is_image(data) and bool(brands & _HEIC_BRANDS)


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise ImageFileError("the image has no pixels")
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"the image has {width} x {height} pixels, more than the {limits.max_pixels} allowed",
        )


def _decode_jpeg(data: bytes, orientation: int, reduction: int) -> Image:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[reduction]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise _invalid(error) from None
    if pixels is None:
        raise ImageFileError("the image does not decode; is it truncated?")
    if pixels.ndim == 2:  # OpenCV leaves grey files grey when it reduces them
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return _upright(np.asarray(pixels, dtype=np.uint8), orientation)


@contextmanager
def _faults_of_the_file() -> Iterator[None]:
    """Errors of Pillow in the block, as an `ImageFileError`."""
    try:
        yield
    except (ImageFileError, MemoryError):  # lack of memory is no fault of the file
        raise
    except _BOMBS:
        raise ImageTooLargeError("the image has more pixels than allowed") from None
    except Exception as error:  # noqa: BLE001 - its readers let anything out: RuntimeError, struct.error
        raise _invalid(error) from None


def _orientation(opened: PillowImage.Image) -> int:
    """The EXIF orientation 1..8; a tag that cannot be read counts as 1, as viewers have it."""
    try:
        orientation = int(opened.getexif().get(_EXIF_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a bad tag may raise anything, and the image is good
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _upright(pixels: Image, orientation: int) -> Image:
    turn = _TURNS.get(orientation)
    return pixels if turn is None else turn(pixels)


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


def to_rgb(opened: PillowImage.Image) -> Image:
    """An image of Pillow as RGB uint8, turned no further; transparent places show white.

    Tile by tile: a whole image's copies would each cost its size. Raises `ImageFileError` for
    values that are not those of an image.
    """
    width, height = opened.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _TILE):
        bottom = min(top + _TILE, height)
        for left in range(0, width, _TILE):
            right = min(left + _TILE, width)
            tile = opened.crop((left, top, right, bottom))
            pixels[top:bottom, left:right] = _tile_to_rgb(tile)
    return pixels


def _tile_to_rgb(tile: PillowImage.Image) -> NDArray[np.uint8]:
    """Pixels that broadcast to `(height, width, 3)`."""
    if tile.mode == "F":
        raise ImageFileError("pixels in floating point; save it with 8 or 16 bits")
    if tile.mode.startswith("I"):
        return _from_16_bit(np.asarray(tile))[:, :, None]
    if tile.has_transparency_data:
        seen = tile.convert("RGBA")
        white = PillowImage.new("RGBA", seen.size, (255, 255, 255, 255))
        tile = PillowImage.alpha_composite(white, seen)
    return np.asarray(tile.convert("RGB"))


def _from_16_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    if values.dtype.itemsize > 2 and not np.array_equal(values, values.astype(np.uint16)):
        raise ImageFileError("pixels of more than 16 bits; save it with 8 or 16 bits")
    return (values.astype(np.uint16, copy=False) >> 8).astype(np.uint8)


def _invalid(error: Exception) -> ImageFileError:
    return ImageFileError(f"the image does not decode: {error_line(error, 200)}")
