"""Keypoints to heatmaps and back (DARK, arXiv 1910.06278), and the flip test.

Everything works on whole batches. The arithmetic exists once, in torch; ``decode`` wraps it for
the arrays of CPU backends.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from sdpose_core.types import PUBLISHED_VIEW, Floats

HEATMAP_SIGMA: Final = 2.0
"""Standard deviation of a joint's Gaussian in heatmap pixels."""
BLUR_KERNEL: Final = 11
"""Width of the blur that DARK applies before its logarithm; its sigma is 2."""


MAX_REFINEMENT: Final = 1.5
"""Bound of the decoder's Newton step in serving, heatmap pixels per axis.

The step of a clean Gaussian is at most half a pixel. On a noisy map the published code's may leave
the map altogether; evaluation keeps that by default, for scores comparable with published ones.
"""


def encode(
    joints: Tensor,
    weights: Tensor,
    sigma: float = HEATMAP_SIGMA,
    size: tuple[int, int] = PUBLISHED_VIEW.heatmap_size,
) -> tuple[Tensor, Tensor]:
    """Gaussian heatmaps with their centre exactly on the joint.

    Args:
        joints: ``(B, K, 2)`` xy in heatmap pixels, not rounded.
        weights: ``(B, K)``, 0 for a joint that is not known.
        size: Width and height of the maps.

    Returns:
        Heatmaps ``(B, K, height, width)`` with a peak of 1, all zero for a joint without weight,
        and the weights ``(B, K)``: 0 where the map would contain none of the joint (centre +- 3
        sigma outside).
    """
    width, height = size
    reach = 3 * sigma
    x, y = joints[..., 0], joints[..., 1]
    outside = (x - reach >= width) | (y - reach >= height) | (x + reach + 1 < 0)
    outside |= y + reach + 1 < 0
    weights = weights.masked_fill(outside, 0)
    columns = torch.arange(width, device=joints.device, dtype=joints.dtype)
    rows = torch.arange(height, device=joints.device, dtype=joints.dtype)
    across = torch.exp(-((columns - x[..., None]) ** 2) / (2 * sigma**2))
    down = torch.exp(-((rows - y[..., None]) ** 2) / (2 * sigma**2))
    maps = down[..., :, None] * across[..., None, :]
    return maps * (weights > 0)[..., None, None], weights


@lru_cache(maxsize=8)
def _blur_matrix(length: int, device: torch.device) -> Tensor:
    """``(length, length)``: a Gaussian blur with zeros beyond the border, as one product."""
    offset = torch.arange(length, dtype=torch.float64)
    distance = offset[:, None] - offset[None, :]
    sigma = 0.3 * ((BLUR_KERNEL - 1) * 0.5 - 1) + 0.8  # OpenCV's rule for this width: 2.0
    half = BLUR_KERNEL // 2
    tap = torch.arange(-half, half + 1, dtype=torch.float64)
    total = torch.exp(-(tap**2) / (2 * sigma**2)).sum()
    kernel = torch.exp(-(distance**2) / (2 * sigma**2)) / total
    return torch.where(distance.abs() <= half, kernel, 0).float().to(device)


def decode_tensor(heatmaps: Tensor, max_refinement: float | None = None) -> tuple[Tensor, Tensor]:
    """Keypoints of heatmaps, to a fraction of a pixel.

    The peak of each map is refined by one Newton step on the logarithm of the blurred map,
    if the peak is at least two pixels from the border.

    Args:
        heatmaps: ``(B, K, H, W)``.
        max_refinement: Bound of the step along each axis, heatmap pixels; None is the published
            code's unbounded step.

    Returns:
        Points ``(B, K, 2)`` xy in heatmap pixels ((-1, -1) for a map without a positive value)
        and scores ``(B, K)``: the peak before blurring. Both float32.
    """
    # Sizes as plain numbers, but for the batch: a trace then serves any number of crops.
    count, height, width = (int(side) for side in heatmaps.shape[1:])
    maps = heatmaps.detach().float().reshape(-1, height, width)
    scores, index = maps.flatten(1).max(dim=1)
    px, py = index % width, index // width

    rows = _blur_matrix(height, maps.device)
    columns = _blur_matrix(width, maps.device)
    blurred = rows @ maps @ columns
    blurred_peak = blurred.flatten(1).amax(dim=1)
    # The blur keeps the original peak height; guarded, since an all-zero map has none.
    gain = scores / torch.where(blurred_peak == 0, 1, blurred_peak)

    inside = (px >= 2) & (px <= width - 3) & (py >= 2) & (py <= height - 3)
    cx, cy = px.clamp(2, width - 3), py.clamp(2, height - 3)
    flat = blurred.flatten(1)

    def at(dx: int, dy: int) -> Tensor:
        place = (cy + dy) * width + cx + dx
        return (flat.gather(1, place[:, None])[:, 0] * gain).clamp_min(1e-10).log()

    middle = at(0, 0)
    gx = 0.5 * (at(1, 0) - at(-1, 0))
    gy = 0.5 * (at(0, 1) - at(0, -1))
    hxx = 0.25 * (at(2, 0) - 2 * middle + at(-2, 0))
    hyy = 0.25 * (at(0, 2) - 2 * middle + at(0, -2))
    hxy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    determinant = hxx * hyy - hxy * hxy
    usable = inside & (determinant != 0)
    determinant = torch.where(usable, determinant, 1)
    step_x = -(hyy * gx - hxy * gy) / determinant
    step_y = -(hxx * gy - hxy * gx) / determinant
    if max_refinement is not None:
        step_x = step_x.clamp(-max_refinement, max_refinement)
        step_y = step_y.clamp(-max_refinement, max_refinement)

    x = px + torch.where(usable, step_x, 0)
    y = py + torch.where(usable, step_y, 0)
    points = torch.stack((x, y), dim=1)
    points = torch.where((scores > 0)[:, None], points, -1.0)
    return points.reshape(-1, count, 2), scores.reshape(-1, count)


def decode(heatmaps: Floats) -> tuple[Floats, Floats]:
    """``decode_tensor`` for arrays: ``(B, K, H, W)`` to points ``(B, K, 2)``, scores ``(B, K)``."""
    points, scores = decode_tensor(torch.from_numpy(np.ascontiguousarray(heatmaps)))
    return points.numpy(), scores.numpy()


def mirror(crops: Tensor, *, aligned: bool = False) -> Tensor:
    """Crops ``(B, 3, H, W)`` mirrored for the flip test.

    By default pixel ``x`` becomes ``W - 1 - x``, as in the published code. ``unflip`` shifts the
    output by a whole column of ``n`` pixels where ``n - 1`` would be right, so the average lies
    half a pixel too far right. ``aligned`` mirrors about pixel ``W / 2`` instead, ``x`` to
    ``W - x``, which a whole column fits exactly.
    """
    plain = crops.flip(3)
    return torch.cat((plain[..., :1], plain[..., :-1]), dim=3) if aligned else plain


def unflip(heatmaps: Tensor, partners: Sequence[int]) -> Tensor:
    """Heatmaps of mirrored crops as those of the crops themselves.

    Mirrored back, left and right joints swapped (``partners``: ``Skeleton.mirror``), then moved
    right by one column (the first keeps its value): without a half-pixel shift they differ by that
    much (see ``mirror``).
    """
    back = heatmaps[:, list(partners)].flip(3)
    return torch.cat((back[..., :1], back[..., :-1]), dim=3)


def merge_flip(heatmaps: Tensor, of_mirrored: Tensor, partners: Sequence[int]) -> Tensor:
    """The flip test's average; both ``(B, K, H, W)``, ``partners`` as in ``unflip``."""
    return (heatmaps + unflip(of_mirrored, partners)) / 2
