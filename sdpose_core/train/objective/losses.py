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


def token_distillation(outputs: Sequence[CycleOutput]) -> tuple[Tensor, Tensor]:
    """Visual and keypoint token errors, summed over adjacent cycles, not yet weighted.

    Each is a mean over all elements. As in the published code, the gradient flows into both sides.
    """
    visual = keypoint = torch.zeros((), device=outputs[0].heatmaps.device)
    for student, teacher in pairwise(outputs):
        visual = visual + F.mse_loss(student.visual_tokens.float(), teacher.visual_tokens.float())
        keypoint = keypoint + F.mse_loss(
            student.keypoint_tokens.float(), teacher.keypoint_tokens.float()
        )
    return visual, keypoint


def student_loss(
    outputs: Sequence[CycleOutput],
    target: Tensor,
    weights: Tensor,
    config: LossConfig,
    first_cycle: int = 1,
) -> dict[str, Tensor]:
    """Every term by name, weighted; their sum is the loss.

    ``first_cycle``: the number of the first output, 0 if it is the backbone's own. Heatmap terms
    are named by their cycle, ``heatmap_<n>``, the first cycle's ``heatmap``.
    """
    terms = {}
    for number, output in enumerate(outputs, start=first_cycle):
        name = "heatmap" if number == 1 else f"heatmap_{number}"
        terms[name] = heatmap_mse(output.heatmaps, target, weights)
    # The tokens of cycle 0 have not been through the encoder: there is nothing to distil into.
    encoded = outputs[1 - first_cycle :]
    if len(encoded) > 1 and config.tokens > 0:
        visual, keypoint = token_distillation(encoded)
        terms["visual_tokens"] = config.tokens * visual
        terms["keypoint_tokens"] = config.tokens * keypoint
    return terms
