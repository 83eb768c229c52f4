"""Loss terms (SDPose, arXiv 2404.03518, and its published code).

total = sum over cycles of H(heatmaps, target)
      + w * sum over adjacent cycles of (MSE(visual tokens) + MSE(keypoint tokens))
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from sdpose_core.model import CycleOutput
from sdpose_core.train.recipe.config import LossConfig


def heatmap_mse(heatmaps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error times the joint's weight, mean over batch, joints and pixels.

    ``heatmaps`` and ``target`` (B, K, H, W), ``weights`` (B, K).
    """
    error = (heatmaps.float() - target).square().mean(dim=(2, 3))
    return (error * weights).mean()


def heatmap_cross_entropy(heatmaps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy between softmax over each map and the normalised target, weighted mean.

    ``heatmaps`` (B, K, H, W) are logits, ``target`` (B, K, H, W) any non-negative maps, ``weights``
    (B, K). The sum is divided by the sum of the weights; joints with an all-zero target do not
    count.
    """
    logs = heatmaps.float().flatten(2).log_softmax(dim=2)
    flat = target.flatten(2)
    mass = flat.sum(dim=2)
    entropy = -(logs * flat).sum(dim=2) / mass.clamp_min(1e-6)
    weights = weights * (mass > 0)
    return (entropy * weights).sum() / weights.sum().clamp_min(1e-6)


def heatmap_loss(kind: str, heatmaps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The loss that a config names ("mse" or "cross_entropy")."""
    if kind == "mse":
        return heatmap_mse(heatmaps, target, weights)
    return heatmap_cross_entropy(heatmaps, target, weights)


def token_distillation(
    outputs: Sequence[CycleOutput], detach_teacher: bool = False
) -> tuple[Tensor, Tensor]:
    """Visual and keypoint token errors, summed over adjacent cycles, not yet weighted.

    Each is a mean over all elements. In the published code the gradient flows into both sides; with
    ``detach_teacher`` only the earlier cycle learns.
    """
    visual = keypoint = torch.zeros((), device=outputs[0].heatmaps.device)
    for student, teacher in pairwise(outputs):
        seen, point = teacher.visual_tokens.float(), teacher.keypoint_tokens.float()
        if detach_teacher:
            seen, point = seen.detach(), point.detach()
        visual = visual + F.mse_loss(student.visual_tokens.float(), seen)
        keypoint = keypoint + F.mse_loss(student.keypoint_tokens.float(), point)
    return visual, keypoint


def heatmap_distillation(kind: str, outputs: Sequence[CycleOutput], weights: Tensor) -> Tensor:
    """Each cycle's heatmaps learn from the next cycle's, which get no gradient; summed over pairs.

    For "cross_entropy" the teacher's softmax is the target, for "mse" its maps are.
    """
    total = torch.zeros((), device=weights.device)
    for student, teacher in pairwise(outputs):
        target = teacher.heatmaps.detach().float()
        if kind == "cross_entropy":
            target = target.flatten(2).softmax(dim=2).view_as(target)
        total = total + heatmap_loss(kind, student.heatmaps, target, weights)
    return total


def student_loss(
    outputs: Sequence[CycleOutput],
    target: Tensor,
    weights: Tensor,
    config: LossConfig,
    first_cycle: int = 1,
) -> dict[str, Tensor]:
    """Every term by name, weighted, without the auxiliary heads; their sum is the loss.

    ``first_cycle``: the number of the first output, 0 where it is the backbone's own. Heatmap terms
    are named by their cycle, ``heatmap_<n>``, the first cycle's ``heatmap``.
    """
    terms = {}
    for number, output in enumerate(outputs, start=first_cycle):
        name = "heatmap" if number == 1 else f"heatmap_{number}"
        terms[name] = heatmap_loss(config.heatmap, output.heatmaps, target, weights)
    # The tokens of cycle 0 have not been through the encoder: there is nothing to distil into.
    encoded = outputs[1 - first_cycle :]
    if len(encoded) > 1 and config.tokens > 0:
        visual, keypoint = token_distillation(encoded, config.detach_teacher)
        terms["visual_tokens"] = config.tokens * visual
        terms["keypoint_tokens"] = config.tokens * keypoint
    if len(outputs) > 1 and config.heatmap_distillation > 0:
        terms["heatmap_distillation"] = config.heatmap_distillation * heatmap_distillation(
            config.heatmap, outputs, weights
        )
    return terms
