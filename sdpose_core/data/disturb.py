"""Changes to the pixels of finished views: occluders, low resolution, tint, grey.

Choices are drawn on the host like those of ``augment``, the pixels are changed on the device.
Labels do not move: a student should know where a hidden joint must be.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.data.augment import AugmentConfig

OCCLUDER = ((0.1, 0.4), (0.08, 0.4))
"""Smallest and largest width and height of an occluder, in units of the view's."""
REDUCTIONS = (2, 4)
"""Reduction factors of a low-resolution view, equally likely."""
COLUMNS = 9
"""Of ``draw_disturbances``: left, top, right and bottom of the occluder, the reduction (1 = none),
factors of red, green and blue, and 1 for grey."""


def draw_disturbances(
    count: int, config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """One row of ``COLUMNS`` a view, places in units of the view; no columns if nothing is enabled.

    Nothing is drawn from ``rng`` then, so that recipes without disturbances keep their views.
    """
    if not any((config.occlude, config.low_resolution, config.grey, config.tint)):
        return np.zeros((count, 0), np.float32)
    rows = np.zeros((count, COLUMNS))
    centre = rng.uniform(size=(count, 2))
    low, high = np.array(OCCLUDER).T
    half = rng.uniform(low, high, (count, 2)) / 2
    occluded = rng.uniform(size=(count, 1)) < config.occlude
    rows[:, 0:2] = np.where(occluded, centre - half, 0)
    rows[:, 2:4] = np.where(occluded, centre + half, 0)
    reduced = rng.uniform(size=count) < config.low_resolution
    rows[:, 4] = np.where(reduced, rng.choice(REDUCTIONS, count), 1)
    rows[:, 5:8] = 1 + config.tint * rng.uniform(-1, 1, (count, 3))
    rows[:, 8] = rng.uniform(size=count) < config.grey
    return rows.astype(np.float32)


def disturb_views(views: Tensor, rows: Tensor) -> Tensor:
    """Views (B, 3, H, W), 0..255, as ``rows`` (B, ``COLUMNS``) on the same device specify.

    An occluder shows the pixels at the same place in the previous view of the batch.
    """
    if rows.shape[1] == 0:
        return views
    height, width = views.shape[2:]
    grey = rows[:, 8].reshape(-1, 1, 1, 1) > 0
    views = views.lerp(views.mean(1, keepdim=True).expand_as(views), grey.to(views.dtype))
    views = views * rows[:, 5:8, None, None]
    for reduction in REDUCTIONS:
        small = F.interpolate(views, (height // reduction, width // reduction), mode="area")
        back = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)
        views = back.where(rows[:, 4].reshape(-1, 1, 1, 1) == reduction, views)
    x = (views.new_ones(width).cumsum(0) - 0.5) / width
    y = (views.new_ones(height).cumsum(0) - 0.5) / height
    left, top, right, bottom = rows[:, :4, None].unbind(1)
    across, down = (x > left) & (x < right), (y > top) & (y < bottom)
    inside = down[:, None, :, None] & across[:, None, None, :]
    return views.roll(1, 0).where(inside, views).clamp_(0, 255)
