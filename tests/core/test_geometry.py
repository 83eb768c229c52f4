"""Crops and coordinates: lit pixels, round trips and odd boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpose_core.types import check_boxes
from sdpose_core.vision.crops import crop_image, crop_tensor, warp_tensor
from sdpose_core.vision.geometry import (
    apply_matrices,
    heatmap_to_image,
    image_to_crop_matrices,
    image_to_heatmap,
    invert_matrices,
    regions_from_boxes,
    window_around,
)

coordinate = st.floats(-3000, 3000, width=32)
side = st.floats(1, 4000, width=32)


@st.composite
def boxes(draw: st.DrawFn) -> list[float]:
    x, y, width, height = draw(coordinate), draw(coordinate), draw(side), draw(side)
    return [x, y, x + width, y + height]


@given(boxes())
def test_view_holds_the_box_at_three_to_four(box: list[float]) -> None:
    regions = regions_from_boxes([box])
    width, height = regions.sizes[0]
    assert width / height == pytest.approx(3 / 4, rel=1e-4)
    x1, y1, x2, y2 = check_boxes([box])[0]
    assert max(x2 - x1, (y2 - y1) * 3 / 4) * 1.25 == pytest.approx(width, rel=1e-4)
    assert regions.centres[0] == pytest.approx([(x1 + x2) / 2, (y1 + y2) / 2], rel=1e-4, abs=1e-2)


@given(boxes())
def test_image_and_heatmap_points_come_back(box: list[float]) -> None:
    regions = regions_from_boxes([box])
    points = np.array([[[0, 0], [47, 63], [12.25, 40.5]]], np.float32)
    there = heatmap_to_image(points, regions)
    # Float32 keeps about 2e-4 pixels at coordinates of thousands; small views enlarge that.
    slack = 1e-3 + 5e-3 * 48 / float(regions.sizes[0, 0])
    np.testing.assert_allclose(image_to_heatmap(there, regions), points, atol=slack)


@given(boxes(), st.floats(-180, 180))
def test_matrices_invert(box: list[float], degrees: float) -> None:
    matrices = image_to_crop_matrices(regions_from_boxes([box]), [degrees])
    points = np.array([[[0.0, 0.0], [191.0, 255.0], [96.0, 128.0]]])
    back = apply_matrices(matrices, apply_matrices(invert_matrices(matrices), points))
    np.testing.assert_allclose(back, points, atol=1e-5)


@given(boxes())
@settings(max_examples=50)
def test_any_box_gives_a_crop(box: list[float]) -> None:
    """Outside the picture, one pixel wide or huge: always a crop, black where nothing is."""
    image = np.full((40, 60, 3), 200, np.uint8)
    crop = crop_image(image, regions_from_boxes([box]))
    assert crop.shape == (1, 256, 192, 3)
    x1, y1, x2, y2 = regions_from_boxes([box]).centres.repeat(2, 0).ravel()[[0, 1, 0, 1]]
    reach_x, reach_y = regions_from_boxes([box]).sizes[0] / 2
    if x1 + reach_x < -1 or x2 - reach_x > 61 or y1 + reach_y < -1 or y2 - reach_y > 41:
        assert not crop.any()


@pytest.mark.parametrize(
    "wrong",
    [
        [[0, 0, float("nan"), 5]],
        [[0, 0, float("inf"), 5]],
        [[5, 5, 5, 9]],
        [[9, 9, 5, 5]],
        [[0, 0, 5]],
        [0, 0, 5, 5],
    ],
)
def test_unusable_boxes_are_refused(wrong: list[object]) -> None:
    with pytest.raises(ValueError, match="boxes"):
        regions_from_boxes(wrong)  # type: ignore[arg-type]


def test_no_boxes_give_no_crops() -> None:
    regions, image = regions_from_boxes(np.zeros((0, 4))), np.zeros((5, 5, 3), np.uint8)
    assert crop_image(image, regions).shape == (0, 256, 192, 3)
    assert crop_tensor(torch.from_numpy(image), regions).shape[0] == 0


@pytest.mark.parametrize(("x", "y"), [(20, 30), (75, 110), (50, 60)])
def test_a_lit_pixel_lands_where_the_geometry_says(x: int, y: int) -> None:
    image = np.zeros((150, 120, 3), np.uint8)
    image[y, x] = 255
    regions = regions_from_boxes([[10, 15, 90, 130]])
    expected = apply_matrices(image_to_crop_matrices(regions), [[[x, y]]])[0, 0]
    for crop in (
        crop_image(image, regions)[0, :, :, 0].astype(float),
        crop_tensor(torch.from_numpy(image), regions)[0, 0].numpy().astype(float),
    ):
        rows, columns = np.indices(crop.shape)
        centre = [(crop * columns).sum() / crop.sum(), (crop * rows).sum() / crop.sum()]
        np.testing.assert_allclose(
            centre, expected, atol=0.12
        )  # half a pixel of the picture would be 0.8


@given(st.integers(0, 2**32 - 1), boxes())
@settings(max_examples=25, deadline=None)
def test_device_crops_agree_with_opencv(seed: int, box: list[float]) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    image = np.kron(noise, np.ones((10, 10, 1), np.uint8))
    box = [value / 20 for value in box]
    box[2:] = [box[0] + max(20.0, box[2] - box[0]), box[1] + max(20.0, box[3] - box[1])]
    regions = regions_from_boxes([box])
    by_opencv = crop_image(image, regions)[0].astype(float)
    by_torch = crop_tensor(torch.from_numpy(image), regions)[0].permute(1, 2, 0).numpy()
    # Even at hard edges. (OpenCV 4 rounded sampling points to 1/32 pixel, which showed there.)
    assert np.abs(by_opencv - by_torch).max() <= 2


WINDOWS = {
    "one": [[30, 40, 60, 90]],
    "two": [[10, 10, 20, 30], [50, 60, 80, 100]],
    "over the edge": [[-30, -20, 25, 40]],
    "over the other edge": [[80, 120, 160, 200]],
    "larger than the picture": [[-200, -300, 400, 500]],
    "outside": [[200, 30, 240, 90]],
    "outside on the left": [[-90, -90, -50, -30]],
    "far away": [[1e6, 1e6, 1e6 + 40, 1e6 + 90]],
    "a corner": [[118.6, 148.9, 119.1, 149.4]],
}


@pytest.mark.parametrize("given_boxes", WINDOWS.values(), ids=WINDOWS)
def test_device_crops_of_a_window_are_those_of_the_whole_picture(
    given_boxes: list[list[float]],
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 120, 3), dtype=np.uint8)
    image = torch.from_numpy(noise)
    regions = regions_from_boxes(given_boxes)
    matrices = torch.from_numpy(invert_matrices(image_to_crop_matrices(regions)))
    whole = image.permute(2, 0, 1)[None].float().expand(len(regions), -1, -1, -1)
    expected = warp_tensor(whole, matrices, (256, 192))
    torch.testing.assert_close(crop_tensor(image, regions), expected, atol=0.2, rtol=0)


def test_the_window_is_no_larger_than_needed() -> None:
    regions = regions_from_boxes([[300, 400, 330, 440], [350, 380, 380, 420]])
    left, top, right, bottom = window_around(regions, 4000, 3000)
    assert 0 < left < 300
    assert 0 < top < 380
    assert (right - left) * (bottom - top) < 150 * 150
