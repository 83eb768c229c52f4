"""Heatmaps to joints as one module, so that a backend can compile it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdpose_core.model.heads import ScoreHead
from sdpose_core.vision.heatmaps import decode_tensor


class JointReader(nn.Module):
    """``(N, K, H, W)`` heatmaps to x, y (heatmap pixels), score and visibility of each joint.

    One tensor ``(N, K, 4)``, so one copy from a GPU; ``(N, K, 3)`` without a score head.

    Args:
        scores: Turns peaks into scores and visibility; without it the peaks are the scores.
        max_refinement: As in ``decode_tensor``.
    """

    def __init__(self, scores: ScoreHead | None, max_refinement: float | None) -> None:
        super().__init__()
        self.scores = scores
        self.max_refinement = max_refinement

    def forward(self, heatmaps: Tensor) -> Tensor:
        """See the class."""
        points, peaks = decode_tensor(heatmaps, self.max_refinement)
        values = (peaks,) if self.scores is None else self.scores(points, peaks)
        return torch.cat((points, torch.stack(values, dim=2)), dim=2)
