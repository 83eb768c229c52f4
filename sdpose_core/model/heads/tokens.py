"""The published head: every keypoint token outputs its whole heatmap (SDPose, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from sdpose_core.model.config import StudentConfig


def token_head(config: StudentConfig) -> nn.Sequential:
    """``(B, K, dim)`` keypoint tokens to ``(B, K, height * width)``, row by row."""
    height, width = config.heatmap_size
    return nn.Sequential(
        nn.LayerNorm(config.embed_dim),
        nn.Linear(config.embed_dim, config.head_dim),
        nn.LayerNorm(config.head_dim),
        nn.Linear(config.head_dim, height * width),
    )
