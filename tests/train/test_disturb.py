"""Disturbed views: what changes and what does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdpose_core.data.augment import AugmentConfig
from sdpose_core.data.disturb import COLUMNS, REDUCTIONS, disturb_views, draw_disturbances

NEUTRAL = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 0]], np.float32)


def views(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.rand(count, 3, 64, 48, generator=generator)


def test_recipes_without_disturbances_draw_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = draw_disturbances(5, AugmentConfig(colour=0.3), rng)
    assert rows.shape == (5, 0)
    assert rng.uniform() == np.random.default_rng(0).uniform()
    images = views()
    assert disturb_views(images, torch.zeros(2, 0)) is images
    np.testing.assert_allclose(
        disturb_views(images, torch.from_numpy(NEUTRAL.repeat(2, 0))), images
    )


def test_chances_are_those_of_the_config() -> None:
    config = AugmentConfig(occlude=0.3, low_resolution=0.4, grey=0.1, tint=0.2)
    rows = draw_disturbances(4000, config, np.random.default_rng(0))
    assert rows.shape == (4000, COLUMNS)
    assert (rows[:, 2] > rows[:, 0]).mean() == pytest.approx(0.3, abs=0.03)
    assert (rows[:, 4] > 1).mean() == pytest.approx(0.4, abs=0.03)
    assert set(rows[:, 4]) == {1, *REDUCTIONS}
    assert rows[:, 8].mean() == pytest.approx(0.1, abs=0.02)
    assert np.abs(rows[:, 5:8] - 1).max() == pytest.approx(0.2, abs=0.005)


def test_an_occluder_shows_the_view_before() -> None:
    images, rows = views(), torch.from_numpy(NEUTRAL.repeat(2, 0))
    rows[0, :4] = torch.tensor([0.25, 0.5, 0.5, 1.0])
    changed = disturb_views(images, rows)
    inside = torch.zeros(64, 48, dtype=torch.bool)
    inside[32:, 12:24] = True
    assert torch.equal(changed[0][:, inside], images[1][:, inside])
    assert torch.equal(changed[0][:, ~inside], images[0][:, ~inside])
    assert torch.equal(changed[1], images[1])


def test_resolution_tint_and_grey() -> None:
    images, rows = views(3), torch.from_numpy(NEUTRAL.repeat(3, 0))
    rows[0, 4] = 4
    rows[1, 5:8] = torch.tensor([0.5, 1.0, 0.25])
    rows[2, 8] = 1
    changed = disturb_views(images, rows)
    fine = images[0].std()
    assert float(changed[0].std()) < 0.5 * float(fine)
    assert float(changed[0].mean()) == pytest.approx(float(images[0].mean()), rel=0.02)
    torch.testing.assert_close(changed[1], images[1] * torch.tensor([0.5, 1, 0.25])[:, None, None])
    torch.testing.assert_close(changed[2], images[2].mean(0, keepdim=True).expand(3, -1, -1))
