"""Every kind of image file that people send, and those that they should not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image as PillowImage

from sdpose_core.types import Image
from sdpose_core.vision.image_files import (
    ImageFileError,
    ImageLimits,
    decode_image,
    encode_jpeg,
    read_header,
)
from tests.pictures import (
    BLUE,
    GREEN,
    RED,
    WHITE,
    animated_gif,
    corners,
    encoded,
    jpeg_with_orientation,
    png_bomb,
)

LIMITS = ImageLimits(max_bytes=2**20, max_pixels=1_000_000)


@contextmanager
def refused(code: str, match: str | None = None) -> Iterator[None]:
    with pytest.raises(ImageFileError, match=match) as raised:
        yield
    assert raised.value.code == code


def assert_corners(picture: Image, tolerance: int = 12) -> None:
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert picture.shape == (32, 48, 3)
    for (row, column), colour in {
        (8, 12): RED,
        (8, 36): GREEN,
        (24, 12): BLUE,
        (24, 36): WHITE,
    }.items():
        difference = np.abs(picture[row, column].astype(int) - colour)
        assert difference.max() <= tolerance, (row, column, picture[row, column])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 95}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
    ],
)
def test_kinds(kind: str, options: dict[str, object]) -> None:
    assert_corners(decode_image(encoded(corners(), kind, **options), LIMITS))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    assert_corners(decode_image(jpeg_with_orientation(orientation, kind), LIMITS), tolerance=40)


def test_opencv_and_pillow_decode_jpeg_alike() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    data = encoded(noise, "JPEG", quality=80)
    import io

    pillow = np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(decode_image(data, LIMITS).astype(int) - pillow).max() <= 1


def test_cmyk() -> None:
    data = encoded(PillowImage.fromarray(corners()).convert("CMYK"), "JPEG", quality=95)
    assert_corners(decode_image(data, LIMITS), tolerance=40)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_the_high_byte(kind: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    picture = decode_image(encoded(PillowImage.fromarray(values), kind), LIMITS)
    assert picture[0].tolist() == [[v, v, v] for v in (0, 0, 1, 128, 255)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey(kind: str) -> None:
    picture = decode_image(encoded(PillowImage.new("L", (6, 4), 77), kind), LIMITS)
    assert picture.shape == (4, 6, 3)
    assert (picture == 77).all()


def test_one_bit() -> None:
    assert (decode_image(encoded(PillowImage.new("1", (6, 4), 1), "PNG"), LIMITS) == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_places_show_white(mode: str) -> None:
    clear = PillowImage.new("RGBA", (4, 4), (0, 0, 0, 0))
    opened = clear.quantize(4) if mode == "PA" else clear.convert(mode)
    assert (decode_image(encoded(opened, "PNG"), LIMITS) == 255).all()


def test_half_transparent_is_blended() -> None:
    half = PillowImage.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert decode_image(encoded(half, "PNG"), LIMITS)[0, 0].tolist() == [127, 127, 127]


def test_animation_gives_its_first_frame() -> None:
    assert_corners(decode_image(animated_gif(), LIMITS))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_truncated(kind: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(noise, kind)
    with refused("invalid_image"):
        decode_image(data[: int(len(data) * kept)], LIMITS)


@pytest.mark.parametrize(
    "data", [b"just some text, no image", b"<svg xmlns='...'/>", b"%PDF-1.7", bytes(100)]
)
def test_other_kinds_are_not_accepted(data: bytes) -> None:
    with refused("unsupported_media_type"):
        decode_image(data, LIMITS)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (HEIC, "HEIC, the format of phones, is not read: save it as JPEG"),
        (HEIC.replace(b"ftypheic", b"ftypmif1"), "HEIC"),
        (encoded(corners(), "TIFF", tiffinfo={254: 1}), "a camera's raw file, whose first image"),
    ],
)
def test_what_would_be_read_in_part_is_refused_by_name(data: bytes, said: str) -> None:
    with refused("unsupported_media_type", match=said):
        decode_image(data, LIMITS)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "invalid_image"),
        (b"\xff\xd8\xff" + bytes(LIMITS.max_bytes), "payload_too_large"),
    ],
)
def test_no_bytes_and_too_many(data: bytes, code: str) -> None:
    with refused(code):
        decode_image(data, LIMITS)


def test_a_gif_whose_frame_outgrows_its_screen_counts_by_the_frame() -> None:
    data = encoded(PillowImage.new("P", (4, 4)), "GIF")
    screen, frame = b"\x04\x00\x04\x00", b",\x00\x00\x00\x00"
    for side, fits in ((900, True), (1100, False)):
        grown = data.replace(frame + screen, frame + side.to_bytes(2, "little") * 2)
        assert grown != data
        if fits:
            header = read_header(grown, LIMITS)
            assert (header.width, header.height) == (side, side)
        else:
            with refused("payload_too_large"):
                read_header(grown, LIMITS)


@pytest.mark.parametrize("size", [(1001, 1000), (10_000, 9_000), (30_000, 30_000)])
def test_bomb_is_refused_from_its_header(size: tuple[int, int]) -> None:
    start = png_bomb(*size)[:60]  # no pixel in it
    with refused("payload_too_large"):
        read_header(start, LIMITS)


def test_header_tells_the_size() -> None:
    header = read_header(jpeg_with_orientation(6), LIMITS)
    assert (header.width, header.height, header.orientation) == (32, 48, 6)


def test_jpeg_round_trip() -> None:
    assert_corners(decode_image(encode_jpeg(corners(), quality=95), LIMITS), tolerance=30)
