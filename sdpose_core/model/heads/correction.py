"""A head that corrects the backbone's own heatmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sdpose_core.model.config import StudentConfig

DENSE_CHANNELS: Final = 16
"""Channels that the visual tokens unfold into, next to the backbone's features."""


class CorrectionHead(nn.Module):
    """``heatmap * (1 + gate) + kernel . (features, unfolded visual tokens)``.

    Gate and kernel come from the keypoint's token; the layer that computes them starts at zero, so
    that an untrained head leaves the heatmaps unchanged.
    """

    def __init__(self, config: StudentConfig, channels: int) -> None:
        super().__init__()
        self.patch = config.patch_size
        unfolded = DENSE_CHANNELS * self.patch[0] * self.patch[1]
        self.visual = nn.Sequential(
            nn.LayerNorm(config.embed_dim), nn.Linear(config.embed_dim, unfolded)
        )
        self.keypoint = nn.Sequential(
            nn.LayerNorm(config.embed_dim),
            nn.Linear(config.embed_dim, config.head_dim),
            nn.GELU(),
            nn.Linear(config.head_dim, 1 + channels + DENSE_CHANNELS),
        )

    def reset_parameters(self) -> None:
        """Zero the last layer: no correction."""
        last = self.keypoint[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, keypoint: Tensor, visual: Tensor, features: Tensor, heatmaps: Tensor
    ) -> Tensor:
        """Corrected heatmaps ``(B, K, H, W)``.

        Args:
            keypoint: ``(B, K, dim)`` tokens.
            visual: ``(B, rows * columns, dim)`` tokens.
            features: ``(B, C, rows * p1, columns * p2)``.
            heatmaps: ``(B, K, H, W)``, the backbone's own.
        """
        batch, _, height, width = features.shape
        (p1, p2), rows, columns = self.patch, height // self.patch[0], width // self.patch[1]
        values = self.visual(visual).reshape(batch, rows, columns, DENSE_CHANNELS, p1, p2)
        dense = values.permute(0, 3, 1, 4, 2, 5).reshape(batch, DENSE_CHANNELS, height, width)
        answer = self.keypoint(keypoint)
        gate, kernel = answer[..., :1], answer[..., 1:]
        seen = torch.cat((features, dense.to(features.dtype)), dim=1).flatten(2)
        change = (kernel @ seen).reshape(batch, -1, height, width)
        corrected: Tensor = heatmaps * (1 + gate[..., None]) + change
        return corrected
