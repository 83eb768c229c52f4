"""Drawing poses: what is drawn, where, in which colour, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdpose_core.io.overlay import draw_poses, line_width, line_widths
from sdpose_core.skeleton import COCO17
from sdpose_core.types import Image, Poses


def _standing(score: float = 0.9) -> Poses:
    """One person from the front in a picture of 200 x 300: right side on the picture's left."""
    points = np.zeros((1, 17, 2), np.float32)
    rows = {"nose": 30, "eye": 20, "ear": 25, "shoulder": 70, "elbow": 110, "wrist": 150}
    rows |= {"hip": 160, "knee": 220, "ankle": 280}
    for index, name in enumerate(COCO17.keypoints):
        side, _, part = name.rpartition("_")
        away = {"eye": 8, "ear": 14}.get(part, 40)
        x = 100 + {"left": away, "right": -away, "": 0}[side]
        points[0, index] = x, rows[part]
    return Poses(
        points,
        np.full((1, 17), score, np.float32),
        np.array([[50, 5, 150, 295]], np.float32),
        np.array([0.9], np.float32),
    )


def _grey() -> Image:
    return np.full((300, 200, 3), 128, np.uint8)


def test_left_is_orange_right_is_blue() -> None:
    drawn = draw_poses(_grey(), _standing()).astype(int)
    thigh_left, thigh_right = drawn[190, 140], drawn[190, 60]
    assert thigh_left[0] > thigh_left[2] + 100, "the left thigh is more red than blue"
    assert thigh_right[2] > thigh_right[0] + 100, "the right thigh is more blue than red"
    hips = drawn[160, 100]
    assert hips[1] > hips[0] + 50
    assert hips[1] > hips[2] + 50


def test_the_given_picture_stays_as_it_is() -> None:
    image = _grey()
    drawn = draw_poses(image, _standing(), boxes=True)
    assert (image == 128).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (drawn != 128).any()


def test_uncertain_keypoints_and_their_limbs_are_left_out() -> None:
    poses = _standing()
    poses.keypoint_scores[0, COCO17.keypoints.index("left_knee")] = 0.2
    drawn = draw_poses(_grey(), poses)
    assert (drawn[190, 140] == 128).all(), "the left thigh"
    assert (drawn[250, 140] == 128).all(), "the left shank"
    assert (drawn[190, 60] != 128).any(), "the right thigh"
    assert (draw_poses(_grey(), poses, min_keypoint_score=0.1)[190, 140] != 128).any()


def test_nobody_and_nothing_certain() -> None:
    assert (draw_poses(_grey(), Poses.empty(), boxes=True) == 128).all()
    assert (draw_poses(_grey(), _standing(0.1)) == 128).all()


def test_boxes_only_when_asked() -> None:
    assert (draw_poses(_grey(), _standing())[200, 49:52] == 128).all()
    assert (draw_poses(_grey(), _standing(), boxes=True)[200, 49:52] != 128).any()


def test_ids_stand_above_their_people() -> None:
    plain, unknown, known = (
        draw_poses(_grey(), replace(_standing(), ids=ids))
        for ids in (None, np.array([0]), np.array([7]))
    )
    assert (plain == unknown).all()
    changed = np.flatnonzero((plain != known).any(axis=2).any(axis=1))
    assert 0 < len(changed) < 40, "a label, no more"


def test_keypoints_far_outside_do_no_harm() -> None:
    poses = _standing()
    poses.keypoints[0, 15:] = (-1e9, 3e10)
    assert draw_poses(_grey(), poses).shape == (300, 200, 3)


def test_lines_grow_with_the_picture() -> None:
    small, large = (np.zeros((side, side, 3), np.uint8) for side in (100, 2000))
    assert line_width(small) == 2
    assert line_width(large) == 10
    thin = draw_poses(_grey(), _standing(), thickness=1)
    thick = draw_poses(_grey(), _standing(), thickness=9)
    assert (thick != 128).sum() > 2 * (thin != 128).sum()


def test_lines_fit_the_person_and_the_picture() -> None:
    heights = np.array([20, 60, 200, 2000], np.float32)
    boxes = np.stack([0 * heights, 0 * heights, heights / 2, heights], axis=1)
    widths = {
        side: line_widths(np.zeros((side, side, 3), np.uint8), boxes) for side in (100, 400, 1200)
    }
    assert widths == {100: [1, 1, 2, 2], 400: [1, 1, 2, 2], 1200: [2, 2, 3, 6]}


def test_a_small_person_is_no_blob_and_can_be_seen() -> None:
    """Someone 60 pixels high in 1200: the legs apart, and every row of them drawn."""
    standing = _standing()
    small = replace(standing, keypoints=standing.keypoints / 5, boxes=standing.boxes / 5)
    ground = np.full((1200, 1200, 3), 128, np.uint8)
    fitted, thick = (
        (draw_poses(ground, small, thickness=thickness) != 128).any(axis=2)[:62, :40]
        for thickness in (None, line_width(ground))
    )
    assert fitted[35:56].any(axis=1).all()
    assert not fitted[37:56, 17:25].any(), "between the legs"
    assert fitted.sum() < 0.5 * thick.sum()


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))]
)
def test_other_pictures_are_refused(image: Image) -> None:
    with pytest.raises(ValueError, match=r"expected a uint8 array of shape \(height, width, 3\)"):
        draw_poses(image, Poses.empty())
