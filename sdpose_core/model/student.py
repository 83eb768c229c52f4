"""The student network of SDPose (CVPR 2024, arXiv 2404.03518)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdpose_core.heatmaps import HEATMAP_SIGMA
from sdpose_core.model.backbone import build_backbone
from sdpose_core.model.config import StudentConfig
from sdpose_core.model.transformer import Encoder, resize_table, sine_table, split_patches

# ImageNet statistics of RGB values 0..255.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class CycleOutput(NamedTuple):
    """What one cycle of the transformer leaves.

    Attributes:
        heatmaps: ``(B, 17, 64, 48)``.
        keypoint_tokens: ``(B, 17, 192)``, the encoder's raw output, no norm.
        visual_tokens: ``(B, N, 192)``, likewise.
    """

    heatmaps: Tensor
    keypoint_tokens: Tensor
    visual_tokens: Tensor


class Student(nn.Module):
    """Crops in, heatmaps out.

    Args:
        config: One of ``PRESETS`` or an own one. Weights are random until a checkpoint is loaded.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    pos_embedding: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, config.stage1_planes)
        patch_values = config.patch_size[0] * config.patch_size[1] * self.backbone.out_channels
        self.patch_embedding = nn.Linear(patch_values, config.embed_dim)
        self.keypoint_token = nn.Parameter(torch.zeros(1, config.keypoints, config.embed_dim))
        self.encoder = Encoder(config)
        height, width = config.heatmap_size
        self.head = nn.Sequential(
            nn.LayerNorm(config.embed_dim),
            nn.Linear(config.embed_dim, config.head_dim),
            nn.LayerNorm(config.head_dim),
            nn.Linear(config.head_dim, height * width),
        )
        # Frozen, yet kept in checkpoints: the published files hold it.
        self.register_buffer("pos_embedding", sine_table(*config.grid, config.embed_dim))
        mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
        self.register_buffer("pixel_mean", mean.reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", std.reshape(1, 3, 1, 1), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal 0.02 for all linear layers and tokens, zero biases.

        The paper's code leaves the transformer's linear layers at the library's default; this
        start learns markedly faster (see ``docs/training_log.md``).
        """
        nn.init.trunc_normal_(self.keypoint_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor, cycles: int = 1) -> Tensor:
        """The served pass.

        Args:
            images: ``(B, 3, 256, 192)`` RGB crops with values 0..255, uint8 or float.
            cycles: How often the encoder runs; 1 is the deployed network of the paper.

        Returns:
            ``(B, 17, 64, 48)`` heatmaps of the last cycle with a peak of about 1 where the
            student is sure. A student of logits has them made into such maps here.

        Raises:
            ValueError: images of another shape, or fewer than one cycle.
        """
        expected = (3, *self.config.input_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"images: expected (B, {expected}), got {tuple(images.shape)}")
        if cycles < 1:
            raise ValueError(f"cycles: expected at least 1, got {cycles}")
        tokens, positions = self.embed(self.features(self.pool(images)))
        for _ in range(cycles):
            tokens = self.encoder(tokens, positions)
        heatmaps = self.heatmaps(tokens[:, : self.config.keypoints])
        if self.config.heatmap_kind == "logits":
            # A Gaussian of sum 1 has its peak at 1 / (2 pi sigma^2); scaled to a peak of 1.
            flat = heatmaps.flatten(2).float().softmax(dim=2)
            return (flat * (2 * math.pi * HEATMAP_SIGMA**2)).view_as(heatmaps)
        return heatmaps

    def forward_cycles(self, images: Tensor, cycles: int | None = None) -> list[CycleOutput]:
        """Every cycle's output, for losses and distillation; heatmaps as the head leaves them.

        Images may be of another size than ``config.input_size`` (a whole number of patches);
        then the position table is resampled and the heatmaps show the same frame.
        ``cycles`` is ``config.train_cycles`` unless told otherwise.
        """
        return self.cycles(self.features(self.pool(images)), cycles)

    def pool(self, images: Tensor) -> Tensor:
        """Crops as large as the backbone is to see them: ``(B, 3, H / pool, W / pool)``."""
        if self.config.pool == 1:
            return images
        return F.avg_pool2d(images.to(self.pixel_mean.dtype), self.config.pool)

    def features(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` RGB 0..255 to the backbone's map ``(B, C, H/4, W/4)``."""
        pixels = images.to(self.pixel_mean.dtype)
        return self.backbone((pixels - self.pixel_mean) / self.pixel_std)  # type: ignore[no-any-return]

    def cycles(self, features: Tensor, cycles: int | None = None) -> list[CycleOutput]:
        """The transformer's part of ``forward_cycles``, from a feature map on."""
        count = self.config.train_cycles if cycles is None else cycles
        if count < 1:
            raise ValueError(f"cycles: expected at least 1, got {count}")
        tokens, positions = self.embed(features)
        outputs = []
        for _ in range(count):
            tokens = self.encoder(tokens, positions)
            keypoint = tokens[:, : self.config.keypoints]
            visual = tokens[:, self.config.keypoints :]
            outputs.append(CycleOutput(self.heatmaps(keypoint), keypoint, visual))
        return outputs

    def embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``(B, 17 + N, 192)``, keypoint tokens first, and positions ``(1, N, 192)``."""
        p1, p2 = self.config.patch_size
        grid = (features.shape[2] // p1, features.shape[3] // p2)
        if (grid[0] * p1, grid[1] * p2) != tuple(features.shape[2:]):
            raise ValueError(
                f"a feature map of {tuple(features.shape[2:])} is not a whole number of "
                f"{p1}x{p2} patches"
            )
        positions = self.pos_embedding
        if grid != self.config.grid:
            positions = resize_table(positions, self.config.grid, grid)
        visual = self.patch_embedding(split_patches(features, self.config.patch_size)) + positions
        keypoint = self.keypoint_token.expand(visual.shape[0], -1, -1)
        return torch.cat((keypoint.to(visual.dtype), visual), dim=1), positions

    def heatmaps(self, keypoint_tokens: Tensor) -> Tensor:
        """``(B, 17, 192)`` keypoint tokens to ``(B, 17, 64, 48)`` heatmaps."""
        return self.head(keypoint_tokens).unflatten(2, self.config.heatmap_size)  # type: ignore[no-any-return]


class ServedStudent(nn.Module):
    """``Student.forward`` with its cycles fixed: one tensor in, one out, for tracing."""

    def __init__(self, student: Student, cycles: int) -> None:
        super().__init__()
        self.student, self.count = student, cycles

    def forward(self, images: Tensor) -> Tensor:
        """As ``Student.forward``."""
        return self.student(images, self.count)  # type: ignore[no-any-return]
