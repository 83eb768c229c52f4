"""Muon for the hidden matrices, AdamW for everything else, as one optimiser.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a
matrix by the nearest orthogonal one. ``torch.optim.Muon`` is not used: it does not support
convolutions and computes in bfloat16, which a CPU without such units emulates at a tenth of the
speed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

MOMENTUM: Final = 0.95
# Coefficients of the quintic Newton-Schulz iteration from Jordan's post.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS: Final = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices (N, rows, columns) with their singular values moved near 1 (0.7 to 1.2)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result


def hidden_matrices(student: nn.Module) -> list[Tensor]:
    """Muon's parameters: matrices and convolutions between hidden features.

    The first convolution (it sees pixels) and the last layer (it makes maps) use AdamW, as Muon's
    authors advise for inputs and outputs.
    """
    weights = [
        module.weight
        for module in student.modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.requires_grad
    ]
    return [w for w in weights[:-1] if w.shape[1] > 3]


class Muon(torch.optim.AdamW):
    """AdamW whose groups with ``"muon": True`` use Muon's step instead.

    The step of a matrix is ``0.2 * sqrt(max(rows, columns)) * scale * lr`` times the orthogonal
    matrix, which gives it about the size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that
    one rate suits both. A step consumes the gradients of Muon's groups.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all groups; a ``closure`` is not supported."""
        if closure is not None:
            raise ValueError("Muon does not support a closure")
        for group in self.param_groups:
            if group["muon"]:
                self._orthogonal_step(group)
        return super().step()  # skips parameters without a gradient

    def __setstate__(self, state: dict[str, Any]) -> None:
        # AdamW's own looks for a step counter in every state; Muon's matrices have none.
        torch.optim.Optimizer.__setstate__(self, state)

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
            update = weight.grad.lerp(momentum, MOMENTUM).flatten(1)
            alike[(update.shape[0], update.shape[1])].append((weight, update))
            weight.grad = None
        for shape, members in alike.items():
            steps = orthogonalise(torch.stack([update for _, update in members]))
            size = 0.2 * math.sqrt(max(shape)) * group["scale"] * group["lr"]
            for (weight, _), step in zip(members, steps, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(step.reshape(weight.shape), alpha=-size)
