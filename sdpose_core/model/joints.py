"""Heatmaps to joints as one module, so that a backend can compile it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdpose_core.model.heads import ScoreHead
from sdpose_core.vision.heatmaps import decode_tensor


class JointReader(nn.Module):
    """``(N, K, H, W)`` heatmaps to x, y (heatmap pixels) and score of each joint, ``(N, K, 3)``.

    One tensor, so one copy from a GPU.

    Args:
        scores: Turns peaks into scores; without it the peaks are the scores.
        max_refinement: As in ``decode_tensor``.
    """

    def __init__(self, scores: ScoreHead | None, max_refinement: float | None) -> None:
        super().__init__()
        self.scores = scores
        self.max_refinement = max_refinement

    def forward(self, heatmaps: Tensor) -> Tensor:
        """See the class."""
        points, scores = decode_tensor(heatmaps, self.max_refinement)
        if self.scores is not None:
            scores = self.scores(points, scores)
        return torch.cat((points, scores[..., None]), dim=2)
