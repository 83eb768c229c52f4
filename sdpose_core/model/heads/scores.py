"""Keypoint scores and visibility from all heatmap peaks and positions of a person together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from sdpose_core.model.config import StudentConfig

SMALLEST_PEAK = 1e-3


class ScoreHead(nn.Module):
    """A small perceptron on a person's decoded heatmaps: K peaks and K positions.

    A peak alone does not describe a joint that is cut off or hidden; the other joints indicate
    where it would be. It runs after decoding, so that it costs a few microseconds per person and no
    backend or export needs it. It is fitted separately from the network
    (``sdpose_core.train.scores``); its parameters get no gradient elsewhere.
    """

    mean: Tensor
    scale: Tensor
    size: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        inputs = 4 * config.keypoints
        self.keypoints = config.keypoints
        size = (config.heatmap_size[1], config.heatmap_size[0])
        self.register_buffer("size", torch.tensor(size, dtype=torch.float32), persistent=False)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.layers = nn.Sequential(
            nn.Linear(inputs, config.score_width),
            nn.GELU(),
            nn.Linear(config.score_width, 2 * config.keypoints),
        )
        self.requires_grad_(False)

    def features(self, points: Tensor, peaks: Tensor) -> Tensor:
        """``(N, 68)``: peaks, their logarithms, and positions from -0.5 to 0.5 over the map."""
        places = (points / self.size - 0.5).flatten(1)
        return torch.cat((peaks, peaks.clamp_min(SMALLEST_PEAK).log(), places), dim=1)

    def logits(self, points: Tensor, peaks: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(N, K)`` of a joint being labelled in COCO's sense, and of a labelled one's
        OKS term.

        Args:
            points: ``(N, K, 2)`` xy in heatmap pixels.
            peaks: ``(N, K)`` of the heatmaps before decoding's blur.
        """
        values = self.layers((self.features(points, peaks) - self.mean) / self.scale)
        return values[:, : self.keypoints], values[:, self.keypoints :]

    def forward(self, points: Tensor, peaks: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and visibility of joints, each ``(N, K)``.

        The visibility is the probability that a joint is present: that an annotator would label it
        in COCO's sense, as visible or as hidden but placeable. The score is that times the
        probability that it is placed correctly. Arguments as for ``logits``. In a map without a
        peak both are 0.
        """
        there, right = (F.sigmoid(values) for values in self.logits(points, peaks))
        found = peaks > 0
        return there * right * found, there * found
