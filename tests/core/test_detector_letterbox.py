"""Letterboxing: round trips, a lit rectangle, the two pixel paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sdpose_core.detector.letterbox import (
    PAD_VALUE,
    Letterbox,
    canvas_for,
    paste_arrays,
    paste_tensors,
)

sides = st.integers(1, 5000)
sizes = st.tuples(sides, sides)


@settings(deadline=None)
@given(size=sizes, longest=st.sampled_from([320, 640, 1280]), square=st.booleans())
def test_boxes_come_back_from_the_canvas(size: tuple[int, int], longest: int, square: bool) -> None:
    canvas = canvas_for(size, longest, square=square)
    box = Letterbox.fit(size, canvas)
    height, width = size
    boxes = np.array(
        [[0, 0, width, height], [width * 0.25, height * 0.1, width * 0.75, height * 0.6]],
        np.float32,
    )
    placed = box.image_to_input(boxes)
    assert (placed >= 0).all()
    assert (placed[:, [0, 2]] <= canvas[1]).all()
    assert (placed[:, [1, 3]] <= canvas[0]).all()
    # float32 on the canvas is good to 1e-4 input pixels.
    slack = 1e-3 * max(1.0, max(size) / longest) * max(size) / min(box.scaled_size)
    np.testing.assert_allclose(box.input_to_image(placed), boxes, atol=slack)


@settings(deadline=None)
@given(size=sizes, canvas_side=st.sampled_from([320, 640]))
def test_boxes_never_leave_the_image(size: tuple[int, int], canvas_side: int) -> None:
    box = Letterbox.fit(size, (canvas_side, canvas_side))
    outside = np.array([[-50, -9, 2 * canvas_side, 2 * canvas_side]], np.float32)
    height, width = size
    np.testing.assert_allclose(box.input_to_image(outside), [[0, 0, width, height]], rtol=1e-6)


@settings(deadline=None)
@given(size=sizes, longest=st.sampled_from([320, 640]))
@example(size=(293, 730), longest=320)  # 128.4 rows: rounded down, and the columns must not shrink
def test_fitted_canvas_is_the_smallest_that_holds_the_image(
    size: tuple[int, int], longest: int
) -> None:
    canvas = canvas_for(size, longest, square=False)
    scaled = Letterbox.fit(size, canvas).scaled_size
    assert max(scaled) == max(canvas) == longest
    for side, room in zip(scaled, canvas, strict=True):
        assert room % 32 == 0
        assert 0 <= room - side < 32


@pytest.mark.parametrize("size", [(100, 150), (300, 97), (640, 640), (1300, 900)])
def test_a_lit_rectangle_lands_where_its_box_says(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    y1, y2, x1, x2 = height // 4, height // 2, width // 3, 2 * width // 3
    image[y1:y2, x1:x2] = 255
    box = Letterbox.fit(size, (640, 640))
    lit = paste_arrays([image], [box], (640, 640))[0, :, :, 0] > 190
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    expected = box.image_to_input(np.array([[x1, y1, x2, y2]], np.float32))[0]
    enlarged = max(1.0, 640 / max(size))
    np.testing.assert_allclose(found, expected, atol=1 + enlarged / 2)


def test_padding_is_the_grey_of_training() -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    box = Letterbox.fit((32, 64), (64, 64))
    batch = paste_arrays([image], [box], (64, 64))
    assert (batch[0, :16] == PAD_VALUE).all()
    assert (batch[0, 48:] == PAD_VALUE).all()
    assert (batch[0, 16:48] == 0).all()


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    seed=st.integers(0, 100),
)
def test_tensors_and_arrays_agree(size: tuple[int, int], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    canvas = canvas_for(size, 128, square=False)
    box = Letterbox.fit(size, canvas)
    arrays = paste_arrays([image], [box], canvas).astype(np.int16)
    tensors = paste_tensors([torch.from_numpy(image)], [box], canvas).numpy().astype(np.int16)
    assert arrays.shape == tensors.shape
    # OpenCV interpolates with 11 bit weights.
    assert np.abs(arrays - tensors).max() <= 2
