"""Pictures with particular damage; `tests/fuzz` has damage of every kind."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image as PillowImage

from sdpose_core.types import Image
from sdpose_core.vision import image_files as images
from sdpose_core.vision.image_files import ImageLimits, decode_image
from tests.pictures import corners, encoded

LIMITS = ImageLimits(max_bytes=2**20, max_pixels=1_000_000)


def test_want_of_memory_is_not_blamed_on_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(opened: PillowImage.Image) -> Image:
        raise MemoryError

    monkeypatch.setattr(images, "to_rgb", no_memory)
    with pytest.raises(MemoryError):
        decode_image(encoded(corners(), "PNG"), LIMITS)


def exif_of(*tags: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of tags, each with its number, type, count and little-endian value."""
    after = 8 + 2 + 12 * len(tags) + 4
    entries = tail = b""
    for number, kind, count, value in tags:
        inside = len(value) <= 4
        field = value.ljust(4, b"\0") if inside else struct.pack("<I", after + len(tail))
        entries += struct.pack("<HHI", number, kind, count) + field
        tail += b"" if inside else value
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + tail


UNDEFINED = exif_of((0x0112, 7, 4, b"\x06\0\0\0"))
ZERO_BY_ZERO = exif_of((0x0112, 5, 1, struct.pack("<II", 0, 0)))
NINE = exif_of((0x0112, 3, 1, struct.pack("<H", 9)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("exif", [UNDEFINED, ZERO_BY_ZERO, NINE, b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_a_bad_orientation_tag_does_not_spoil_a_good_picture(kind: str, exif: bytes) -> None:
    picture = decode_image(encoded(corners(), kind, exif=exif), LIMITS)
    assert picture.shape == (32, 48, 3)
    assert np.abs(picture[8, 12].astype(int) - (255, 0, 0)).max() < 40


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_a_bad_tag_beside_a_good_orientation(kind: str) -> None:
    """BitsPerSample that no 16 bits hold: a struct.error where Pillow writes EXIF anew."""
    exif = exif_of((0x0102, 4, 1, b"\xff" * 4), (0x0112, 3, 1, struct.pack("<H", 3)))
    picture = decode_image(encoded(corners()[::-1, ::-1], kind, exif=exif), LIMITS)
    assert np.abs(picture[8, 12].astype(int) - (255, 0, 0)).max() < 40


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "RGB", "P"])
def test_large_pictures_are_whole(mode: str) -> None:
    """Larger than the tiles in which they are converted, and no multiple of them."""
    height, width = 2 * images._TILE + 3, images._TILE + 5
    values = (np.arange(height)[:, None] + 3 * np.arange(width)).astype(np.uint8)
    if mode == "I;16":
        stored = PillowImage.fromarray(values.astype(np.uint16) << 8)
    else:
        stored = PillowImage.fromarray(np.dstack([values] * 3)).convert(mode)
    picture = decode_image(encoded(stored, "PNG"), LIMITS)
    assert picture.shape == (height, width, 3)
    if mode == "P":  # its palette is coarser than the values
        np.testing.assert_array_equal(picture, np.asarray(stored.convert("RGB")))
    else:
        np.testing.assert_array_equal(picture[:, :, 0], values)
