"""The optimiser named by a config."""

from __future__ import annotations

from typing import Any

import torch

from sdpose_core.train.objective.objective import Objective
from sdpose_core.train.recipe.config import TrainConfig


def make_optimiser(objective: Objective, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam, or AdamW, which decays only matrices and convolutions."""
    settings = config.optimiser
    trained = [p for p in objective.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    plain = [p for p in trained if p.ndim <= 1]
    rate = config.stages[0].rate
    if settings.name == "adam":
        every: list[dict[str, Any]] = [{"params": [*decayed, *plain]}]
        return torch.optim.Adam(
            _with_head_rate(every, objective, settings.head_rate),
            lr=rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = _with_head_rate(groups, objective, settings.head_rate)
    return torch.optim.AdamW(groups, lr=rate, betas=settings.betas)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step: ``rate`` for the backbone, its multiple for the rest."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def _with_head_rate(
    groups: list[dict[str, Any]], objective: Objective, factor: float
) -> list[dict[str, Any]]:
    """Each group in two, the backbone's parameters and the others, whose rate has a factor.

    Without a transformer the layer that makes the backbone's heatmaps is the only other one.
    """
    if factor == 1:
        return groups
    student = objective.student
    backbone = {
        id(parameter)
        for name, parameter in student.backbone.named_parameters()
        if student.config.train_cycles > 0 or not name.startswith("final.")
    }
    parts = []
    for group in groups:
        for inside in (True, False):
            chosen = [p for p in group["params"] if (id(p) in backbone) == inside]
            if chosen:
                parts.append({**group, "params": chosen, "factor": 1.0 if inside else factor})
    return parts
