"""Encoding and decoding of heatmaps, and the flip test."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdpose_core.vision.heatmaps import decode, decode_tensor, encode

inner_x = st.floats(3, 44, width=32)
inner_y = st.floats(3, 60, width=32)


@given(st.lists(st.tuples(inner_x, inner_y), min_size=1, max_size=17))
def test_a_joint_comes_back_to_a_hundredth_of_a_pixel(joints: list[tuple[float, float]]) -> None:
    points = torch.tensor([joints], dtype=torch.float32)
    heatmaps, weights = encode(points, torch.ones(1, len(joints)))
    assert weights.min() == 1
    decoded, scores = decode_tensor(heatmaps)
    # Blurring at the border cuts a Gaussian's tail and pulls the peak inwards a little.
    middle = (points[..., 0] > 8) & (points[..., 0] < 39)
    middle &= (points[..., 1] > 8) & (points[..., 1] < 55)
    error = (decoded - points).norm(dim=2)
    assert error.max() < 0.35
    if middle.any():
        assert error[middle].max() < 0.01
    assert scores.min() > 0.9


def test_a_joint_outside_has_no_weight_and_an_unknown_one_no_map() -> None:
    joints = torch.tensor([[[-20.0, 5.0], [10.0, 10.0], [47.0, 75.0], [24.0, 30.0]]])
    heatmaps, weights = encode(joints, torch.tensor([[1.0, 0.0, 1.0, 0.5]]))
    assert weights.tolist() == [[0.0, 0.0, 0.0, 0.5]]
    assert heatmaps[0, :3].abs().max() == 0
    assert heatmaps[0, 3].max() == 1


def test_a_map_without_a_positive_value_has_no_joint() -> None:
    points, scores = decode(np.stack([np.zeros((1, 64, 48)), -np.ones((1, 64, 48))]).astype("f4"))
    assert points.tolist() == [[[-1, -1]], [[-1, -1]]]
    assert scores.tolist() == [[0], [-1]]


def test_peaks_at_the_border_stay_whole_pixels() -> None:
    heatmaps = torch.zeros(1, 4, 64, 48)
    places = [(0, 0), (47, 63), (1, 30), (20, 62)]
    for joint, (x, y) in enumerate(places):
        heatmaps[0, joint, y, x] = 1
    points, _ = decode_tensor(heatmaps)
    assert [tuple(point) for point in points[0].tolist()] == places


def test_a_bound_keeps_the_point_beside_its_peak() -> None:
    """Noise sends the published step out of the map; served, it stays within the bound."""
    heatmaps = torch.rand(20, 17, 64, 48, generator=torch.Generator().manual_seed(3))
    peaks = heatmaps.flatten(2).argmax(dim=2)
    peak = torch.stack((peaks % 48, peaks // 48), dim=2)
    free, _ = decode_tensor(heatmaps)
    bound, _ = decode_tensor(heatmaps, 1.5)
    assert (free - peak).abs().max() > 48
    assert (bound - peak).abs().max() <= 1.5
    near = ((free - peak).abs() <= 1.5).all(dim=2)
    torch.testing.assert_close(bound[near], free[near])


def test_decoding_a_batch_is_decoding_each_alone() -> None:
    heatmaps = torch.rand(5, 17, 64, 48, generator=torch.Generator().manual_seed(0))
    points, scores = decode_tensor(heatmaps)
    for index in range(5):
        alone, score = decode_tensor(heatmaps[index : index + 1])
        torch.testing.assert_close(alone[0], points[index], rtol=0, atol=1e-4)
        assert torch.equal(score[0], scores[index])
