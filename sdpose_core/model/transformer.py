"""Tokens and the encoder that a student runs once or several times (SDPose, section 3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdpose_core.model.config import StudentConfig

TEMPERATURE = 10000.0


def sine_table(rows: int, columns: int, dim: int) -> Tensor:
    """Position table ``(1, rows * columns, dim)`` of DETR (arXiv 2005.12872).

    Coordinates count from 1 and are scaled to 2 pi; the first half of the features encodes y, the
    second x, alternating sine and cosine.
    """
    half = dim // 2
    y = torch.arange(1, rows + 1, dtype=torch.float32) / (rows + 1e-6) * 2 * math.pi
    x = torch.arange(1, columns + 1, dtype=torch.float32) / (columns + 1e-6) * 2 * math.pi
    index = torch.arange(half, dtype=torch.float32)
    wavelength = TEMPERATURE ** (2 * torch.div(index, 2, rounding_mode="floor") / half)

    def features(position: Tensor) -> Tensor:
        angle = position[:, None] / wavelength
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    grid = torch.cat(
        (
            features(y)[:, None, :].expand(rows, columns, half),
            features(x)[None, :, :].expand(rows, columns, half),
        ),
        dim=2,
    )
    return grid.reshape(1, rows * columns, dim)


def split_patches(features: Tensor, patch: tuple[int, int]) -> Tensor:
    """``(B, C, H, W)`` to ``(B, H/p1 * W/p2, p1 * p2 * C)``, row by row, channel fastest."""
    batch, channels, height, width = features.shape
    p1, p2 = patch
    tiles = features.reshape(batch, channels, height // p1, p1, width // p2, p2)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, p1 * p2 * channels)


class Attention(nn.Module):
    """Multi-head self-attention; scale ``(dim / heads) ** -0.5``, no bias on q, k and v."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, dim)`` to the same shape."""
        batch, count, dim = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, dim / heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, count, dim))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim)
        self.attention = Attention(config.embed_dim, config.heads)
        self.norm2 = nn.LayerNorm(config.embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(config.embed_dim, config.mlp_dim),
            nn.GELU(),
            nn.Linear(config.mlp_dim, config.embed_dim),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, dim)`` to the same shape."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """The stack of layers that forms one cycle."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.keypoints = config.keypoints
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.depth))

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """One cycle over ``tokens`` (B, K + N, dim), keypoint tokens first.

        ``positions`` (1, N, dim) are added to the visual tokens before every layer but the
        first: the first already has them, or must not have them (from the second cycle on).
        """
        for index, layer in enumerate(self.layers):
            if index:
                keypoint, visual = tokens[:, : self.keypoints], tokens[:, self.keypoints :]
                tokens = torch.cat((keypoint, visual + positions), dim=1)
            tokens = layer(tokens)
        return tokens
