"""The module that is trained: a student, its training-only heads, and the loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdpose_core.model import CycleOutput, Student
from sdpose_core.train.objective.losses import heatmap_loss, student_loss
from sdpose_core.train.recipe.config import LossConfig


class DenseHead(nn.Module):
    """Heatmaps from the visual tokens: each token predicts its own patch.

    Used in training only: a loss on the visual tokens lets them learn where joints are long before
    the keypoint tokens do.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        config = student.config
        self.patch = config.patch_size
        self.keypoints = config.keypoints
        self.linear = nn.Linear(config.embed_dim, self.keypoints * self.patch[0] * self.patch[1])
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, visual_tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, rows * columns, dim) -> (B, 17, rows * p1, columns * p2)."""
        batch = visual_tokens.shape[0]
        (rows, columns), (p1, p2) = grid, self.patch
        values: Tensor = self.linear(visual_tokens).reshape(
            batch, rows, columns, self.keypoints, p1, p2
        )
        return values.permute(0, 3, 1, 4, 2, 5).reshape(
            batch, self.keypoints, rows * p1, columns * p2
        )


def cycle_outputs(student: Student, features: Tensor, cycles: int) -> list[CycleOutput]:
    """``Student.cycles``; for 0 cycles the backbone's heatmaps alone, without any token.

    A student without a transformer has only these; in others the transformer is not run.
    """
    if cycles > 0:
        return student.cycles(features, cycles)
    own = student.own_heatmaps(features)
    if own is None:
        raise ValueError(f"cycles: {student.config.name} cannot run without a cycle")
    none = own.new_zeros(len(own), 0, student.config.embed_dim)
    return [CycleOutput(own, none, none)]


class Objective(nn.Module):
    """Images and targets in, weighted loss terms out; one call is one forward pass of DDP."""

    def __init__(self, student: Student, config: LossConfig) -> None:
        super().__init__()
        self.student = student
        self.config = config
        self.dense = DenseHead(student) if config.dense > 0 else None
        channels = int(student.backbone.out_channels)  # type: ignore[arg-type]
        keypoints = student.config.keypoints
        self.stem = nn.Conv2d(channels, keypoints, 1) if config.stem > 0 else None

    def forward(
        self, images: Tensor, target: Tensor, weights: Tensor, cycles: int
    ) -> dict[str, Tensor]:
        """Loss terms by name; their sum is the loss.

        ``images`` (B, 3, H, W) RGB 0..255, ``target`` (B, 17, *heatmap_size), ``weights`` (B, 17).
        """
        features = self.student.features(images)
        outputs = cycle_outputs(self.student, features, cycles)
        first = self.student.config.min_cycles
        terms = student_loss(outputs, target, weights, self.config, first)
        kind = self.config.heatmap
        size = (features.shape[2], features.shape[3])
        small = F.adaptive_avg_pool2d(target, size) if size != target.shape[2:] else target
        if self.dense is not None:
            p1, p2 = self.dense.patch
            maps = self.dense(outputs[0].visual_tokens, (size[0] // p1, size[1] // p2))
            terms["dense"] = self.config.dense * heatmap_loss(kind, maps, small, weights)
        if self.stem is not None:
            maps = self.stem(features)
            terms["stem"] = self.config.stem * heatmap_loss(kind, maps, small, weights)
        return terms


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of all terms."""
    return torch.stack(list(terms.values())).sum()
