"""The module that is trained: a student and its loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdpose_core.model import CycleOutput, Student
from sdpose_core.train.objective.losses import student_loss
from sdpose_core.train.recipe.config import LossConfig


def cycle_outputs(student: Student, seen: Tensor | list[Tensor]) -> list[CycleOutput]:
    """``Student.cycles``; without a transformer the backbone's heatmaps, without tokens.

    ``seen``: images, or what ``Student.early`` made of them.
    """
    features = student.features(seen) if isinstance(seen, Tensor) else student.late(seen)
    if student.config.train_cycles > 0:
        return student.cycles(features)
    own = student.backbone.heatmaps(features)  # type: ignore[operator]
    none = own.new_zeros(len(own), 0, student.config.embed_dim)
    return [CycleOutput(own, none, none)]


class Objective(nn.Module):
    """Images and targets in, weighted loss terms out; one call is one forward pass of DDP.

    Args:
        student: Is trained.
        config: Of the loss.
        start: The student before training, for ``kept``.
        kept: Keypoints (indices) that no label shows. Without a target they would drift with the
            layers that they share with the others; theirs are the heatmaps of ``start``.
    """

    def __init__(
        self,
        student: Student,
        config: LossConfig,
        start: Student | None = None,
        kept: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.student = student
        self.config = config
        # In a tuple: it is no part of the state of a run.
        self._start = () if start is None else (start.eval().requires_grad_(False),)
        self._kept = list(kept)

    def forward(
        self, seen: Tensor | list[Tensor], target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """Loss terms by name; their sum is the loss.

        ``seen``: images (B, 3, H, W) RGB 0..255, or what ``Student.early`` made of them;
        ``target`` (B, K, *heatmap_size), ``weights`` (B, K).
        """
        first = self.student.config.min_cycles
        for start in self._start:
            with torch.no_grad():
                answer = cycle_outputs(start, seen)[-1].heatmaps.float()
            target, weights = target.clone(), weights.clone()
            target[:, self._kept] = answer[:, self._kept].to(target.dtype)
            weights[:, self._kept] = 1.0
        outputs = cycle_outputs(self.student, seen)
        return student_loss(outputs, target, weights, self.config, first)


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of all terms."""
    return torch.stack(list(terms.values())).sum()
