"""Views: the published distributions, and joints that stay on their pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sdpose_core.data.augment import (
    AugmentConfig,
    Views,
    draw_views,
    half_body,
    render_views,
)
from sdpose_core.data.shards import CONTEXT_SIZE, VIEW_SIZE, WIDE_CONTEXT_SIZE
from sdpose_core.skeleton import COCO17
from sdpose_core.types import Regions

REFERENCE = AugmentConfig()
NONE = AugmentConfig.none()


def views_of(
    keypoints: NDArray[np.float32],
    config: AugmentConfig,
    seed: int = 0,
    size: tuple[int, int] = CONTEXT_SIZE,
) -> Views:
    count = len(keypoints)
    regions = Regions(
        np.tile(np.array(size, np.float32) / 2, (count, 1)),
        np.tile(np.array(VIEW_SIZE, np.float32), (count, 1)),
    )
    return draw_views(keypoints, regions, size, config, np.random.default_rng(seed))


def people(count: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    xy = rng.uniform((90, 120), (180, 240), (count, 17, 2))
    return np.concatenate([xy, np.ones((count, 17, 1))], axis=2).astype(np.float32)


def test_without_augmentation_the_view_is_the_middle() -> None:
    keypoints = people(3)
    views = views_of(keypoints, NONE)
    np.testing.assert_allclose(views.joints, keypoints[..., :2] - (38.5, 51), atol=1e-3)
    expected = np.tile(np.array([[1, 0, 38.5], [0, 1, 51]]), (3, 1, 1))
    np.testing.assert_allclose(views.to_image, expected, atol=1e-3)
    np.testing.assert_array_equal(views.confidence, 1)


def test_a_lit_pixel_stays_under_its_joint() -> None:
    """Flipped, turned, shifted and scaled: the brightest place of the view is the joint."""
    count = 40
    keypoints = people(count, seed=5)
    images = np.zeros((count, CONTEXT_SIZE[1], CONTEXT_SIZE[0], 3), np.float32)
    rows, columns = np.mgrid[: CONTEXT_SIZE[1], : CONTEXT_SIZE[0]]
    for image, person in zip(images, keypoints, strict=True):
        x, y = person[5, :2]
        image += 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50)[:, :, None]
    views = views_of(keypoints, replace(REFERENCE, half_body_probability=0))
    assert 5 < views.flipped.sum() < 35
    rendered = render_views(
        torch.from_numpy(images.astype(np.uint8)),
        torch.from_numpy(views.to_image),
        torch.from_numpy(views.gain),
        torch.from_numpy(views.lift),
    ).numpy()[:, 0]
    checked = 0
    for index in range(count):
        joint = 6 if views.flipped[index] else 5
        x, y = views.joints[index, joint]
        if 8 < x < 183 and 8 < y < 247:
            peak = np.unravel_index(rendered[index].argmax(), (256, 192))
            assert np.hypot(peak[1] - x, peak[0] - y) < 2.5
            checked += 1
    assert checked > 25


def test_flip_maps_x_to_width_minus_one_minus_x_and_swaps_pairs() -> None:
    keypoints = people(1)
    keypoints[0, 9, 2] = 0.25
    views = views_of(keypoints, replace(NONE, flip_probability=1.0))
    plain = views_of(keypoints, NONE)
    # The view's centre is mirrored with the picture, so in the crop x -> 192 - x.
    mirrored = plain.joints[:, list(COCO17.mirror)]
    np.testing.assert_allclose(views.joints[..., 0], 192 - mirrored[..., 0], atol=1e-3)
    np.testing.assert_allclose(views.joints[..., 1], mirrored[..., 1], atol=1e-3)
    assert views.confidence[0, 10] == 0.25
    assert views.confidence[0, 9] == 1


def test_shift_is_at_most_016_of_the_view_with_probability_03() -> None:
    config = replace(NONE, shift_probability=REFERENCE.shift_probability)
    views = views_of(people(4000), config)
    moved = views.to_image[:, :, 2] - (38.5, 51)
    limit = 0.16 * np.array(VIEW_SIZE)
    assert np.all(np.abs(moved) <= limit + 1e-3)
    assert abs((np.abs(moved).max(axis=1) > 1e-3).mean() - 0.3) < 0.03
    assert np.all(np.abs(moved).max(axis=0) > 0.95 * limit)


def test_scale_is_normal_around_one_clipped_to_065_and_135() -> None:
    views = views_of(people(4000), replace(NONE, scale_factor=REFERENCE.scale_factor))
    scale = views.to_image[:, 0, 0]
    assert abs(scale.min() - 0.65) < 1e-4
    assert abs(scale.max() - 1.35) < 1e-4
    # A standard normal lies beyond +-1 with probability 0.317: those sit at the bounds.
    clipped = (scale < 0.6501) | (scale > 1.3499)
    assert abs(clipped.mean() - 0.317) < 0.03


def test_turn_is_normal_45_degrees_clipped_to_90_with_probability_06() -> None:
    config = replace(NONE, rotation_probability=REFERENCE.rotation_probability)
    views = views_of(people(4000), config)
    angle = np.rad2deg(np.arctan2(views.to_image[:, 1, 0], views.to_image[:, 0, 0]))
    turned = np.abs(angle) > 1e-3
    assert abs(turned.mean() - 0.6) < 0.03
    assert np.abs(angle).max() <= 90.01
    assert abs((np.abs(angle[turned]) > 89.9).mean() - 0.0455) < 0.015
    assert abs((np.abs(angle[turned]) < 45).mean() - 0.683) < 0.03


def test_the_wide_context_holds_every_view() -> None:
    config = replace(REFERENCE, half_body_probability=0)
    views = views_of(people(5000), config, size=WIDE_CONTEXT_SIZE)
    corners = np.array([(0, 0, 1), (191, 0, 1), (0, 255, 1), (191, 255, 1)], float)
    seen = np.einsum("nij,cj->nci", views.to_image, corners)
    assert seen.min() >= -1
    assert np.all(seen.max(axis=(0, 1)) <= WIDE_CONTEXT_SIZE)


def test_half_body_view_holds_the_chosen_half_with_padding() -> None:
    rng = np.random.default_rng(0)
    joints = rng.uniform(50, 200, (17, 2))
    visible = np.ones(17, bool)
    for upper, ids in ((True, COCO17.upper), (False, COCO17.lower)):
        found = half_body(joints, visible, upper, REFERENCE)
        assert found is not None
        centre, size = found
        chosen = joints[list(ids)]
        np.testing.assert_allclose(centre, chosen.mean(axis=0))
        assert size[0] / size[1] == pytest.approx(0.75)
        extent = np.ptp(chosen, axis=0)
        needed = max(extent[0], 0.75 * extent[1])
        assert size[0] == pytest.approx(1.5 * needed)


def test_half_body_needs_more_than_eight_joints() -> None:
    config = replace(NONE, half_body_probability=1.0)
    keypoints = people(2)
    keypoints[0, 8:, 2] = 0  # eight joints left
    views = views_of(keypoints, config)
    np.testing.assert_allclose(views.to_image[0, 0, 0], 1, atol=1e-5)
    assert abs(views.to_image[1, 0, 0] - 1) > 0.01
    hidden = np.zeros(17, bool)
    hidden[0] = True
    assert half_body(keypoints[0, :, :2].astype(float), hidden, True, REFERENCE) is None


def test_the_upper_half_is_chosen_with_069() -> None:
    keypoints = np.repeat(people(1), 3000, axis=0)
    keypoints[:, list(COCO17.lower), :2] += (60, 90)
    views = views_of(keypoints, replace(NONE, half_body_probability=1.0))
    upper = half_body(keypoints[0, :, :2].astype(float), np.ones(17, bool), True, REFERENCE)
    assert upper is not None
    chosen = np.abs(views.to_image[:, 0, 0] - upper[1][0] / 192) < 1e-4
    assert abs(chosen.mean() - 0.69) < 0.03


def test_the_same_seed_gives_the_same_views() -> None:
    a, b, c = (views_of(people(4), REFERENCE, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.to_image, b.to_image)
    assert not np.array_equal(a.to_image, c.to_image)


@pytest.mark.parametrize(
    ("name", "value"), [("flip_probability", 1.2), ("shift_probability", -0.1), ("scale_factor", 1)]
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(REFERENCE, **{name: value})
