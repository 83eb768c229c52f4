"""Steady joints that are not late."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdpose_core.tracking import Smoothing
from sdpose_core.tracking.smoothing import JointFilter
from tests.tracking.scenes import WALKING, steadiness

SCORES = np.full(17, 0.9, np.float32)
SIZE = 100.0


def _points(value: float = 50.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.full((17, 2), value, np.float32)


def test_a_still_person_is_calm_and_a_walking_one_is_not_late() -> None:
    raw, still = (
        steadiness(way, fps=30, noise_px=0.8, heights_per_s=0) for way in (None, Smoothing())
    )
    assert still.jitter_px < 0.3 < 1 < raw.jitter_px
    assert still.error_px < raw.error_px / 2
    for fps in (30.0, 10.0):
        walking = steadiness(Smoothing(), fps=fps, noise_px=0.8, heights_per_s=WALKING)
        assert 0 <= walking.lag_frames < 0.5


def test_near_and_far_people_feel_alike() -> None:
    rng = np.random.default_rng(0)
    near, far = JointFilter(Smoothing()), JointFilter(Smoothing())
    for number in range(30):
        points = (_points() + rng.normal(0, 1, (17, 2)) + number).astype(np.float32)
        large = near(points * 4, SCORES, SIZE * 4, number / 30)
        small = far(points, SCORES, SIZE, number / 30)
        np.testing.assert_allclose(large, small * 4, rtol=1e-4)


def test_an_uncertain_joint_moves_less() -> None:
    steady = JointFilter(Smoothing())
    scores = SCORES.copy()
    scores[4] = 0.1
    steady(_points(), scores, SIZE, 0.0)
    moved = steady(_points(52), scores, SIZE, 1 / 30)
    assert 50 < moved[4, 0] < moved[3, 0] < 52


def test_a_joint_that_jumps_for_one_frame_is_held_and_one_that_stays_is_followed() -> None:
    steady = JointFilter(Smoothing())
    away = _points()
    away[9] += 80
    for number in range(5):
        steady(_points(), SCORES, SIZE, number / 30)
    np.testing.assert_allclose(steady(away, SCORES, SIZE, 5 / 30), 50, atol=0.01)
    np.testing.assert_allclose(steady(_points(), SCORES, SIZE, 6 / 30), 50, atol=0.01)
    steady(away, SCORES, SIZE, 7 / 30)
    stayed = steady(away, SCORES, SIZE, 8 / 30)
    np.testing.assert_allclose(stayed[9], 130, atol=0.01)
    np.testing.assert_allclose(stayed[:9], 50, atol=0.01)


def test_a_body_that_jumps_as_a_whole_is_followed() -> None:
    steady = JointFilter(Smoothing())
    steady(_points(), SCORES, SIZE, 0.0)
    assert steady(_points(130), SCORES, SIZE, 0.1).min() > 100


def test_time_that_does_not_rise_starts_anew() -> None:
    steady = JointFilter(Smoothing())
    steady(_points(), SCORES, SIZE, 5.0)
    assert (steady(_points(90), SCORES, SIZE, 5.0) == 90).all()
    assert (steady(_points(10), SCORES, SIZE, 1.0) == 10).all()


def test_the_given_points_stay_as_they_are() -> None:
    steady = JointFilter(Smoothing())
    for number in range(4):
        points = _points(50 + number)
        steady(points, SCORES, SIZE, number / 30)
        assert (points == 50 + number).all()


@pytest.mark.parametrize("name", ["min_cutoff_hz", "beta", "jump"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Smoothing(**{name: value})
