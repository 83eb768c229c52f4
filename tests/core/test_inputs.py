"""What `estimate` takes: arrays, paths and Pillow images, with the same answer."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from sdpose_core import PoseEstimator
from sdpose_core.vision.image_files import ImageFileError, ImageLimits, decode_image
from sdpose_core.vision.inputs import as_image
from tests.core.test_estimator import BrightSpot, TwoPeople
from tests.pictures import corners, encoded, jpeg_with_orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_path_and_a_pillow_image_are_upright(tmp_path: Path, orientation: int) -> None:
    data = jpeg_with_orientation(orientation, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    expected = decode_image(data, ImageLimits())
    for given in (path, str(path), PillowImage.open(path)):
        np.testing.assert_array_equal(as_image(given), expected)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_mode_is_as_in_a_file(mode: str) -> None:
    picture = PillowImage.fromarray(corners())
    if mode == "I;16":
        picture = PillowImage.fromarray(np.full((8, 9), 0x4080, np.uint16))
        assert as_image(picture).tolist() == np.full((8, 9, 3), 0x40).tolist()
        return
    picture = picture.convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(0)
        assert as_image(picture).min() == 255
    else:
        np.testing.assert_array_equal(as_image(picture), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_values_that_are_no_picture_are_refused(tmp_path: Path, dtype: str) -> None:
    """Scientific software writes 0..1 in floating point: clipped, all of it would be black."""
    values = np.linspace(0, 1 if dtype == "float32" else 1e6, 64).reshape(8, 8).astype(dtype)
    picture = PillowImage.fromarray(values)
    file = io.BytesIO()
    picture.save(file, "TIFF")
    with pytest.raises(ImageFileError, match="save it with 8 or 16 bits"):
        decode_image(file.getvalue(), ImageLimits())
    with pytest.raises(ValueError, match=r"image: pixels .*8 or 16 bits"):
        as_image(picture)
    path = tmp_path / "a.tif"
    path.write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"image: .*a\.tif: .*8 or 16 bits"):
        as_image(path)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"images\[1\]: .*notes\.txt: "):
        as_image(path, "images[1]")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        as_image(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match="a path or a Pillow image, got list"):
        as_image([[1, 2, 3]])


def test_estimate_takes_them_side_by_side(tmp_path: Path) -> None:
    image = corners(120, 100)
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(image, "PNG"))
    estimator = PoseEstimator(BrightSpot(), TwoPeople())
    first, *others = estimator.estimate([image, path, PillowImage.fromarray(image)])
    for other in others:
        np.testing.assert_array_equal(other.keypoints, first.keypoints)
    for single in (image, str(path), path, PillowImage.fromarray(image)):
        with pytest.raises(ValueError, match=r"expected a sequence of images.*\[image\]"):
            estimator.estimate(single)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [50, -0.1, float("nan"), 1.01])
def test_a_score_that_nobody_reaches_is_refused(score: float) -> None:
    estimator = PoseEstimator(BrightSpot(), TwoPeople())
    with pytest.raises(ValueError, match="min_score: expected 0 to 1"):
        estimator.estimate([corners(120, 100)], min_score=score)
