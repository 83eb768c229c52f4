"""The optimiser that a config names."""

from __future__ import annotations

from typing import Any

import torch

from sdpose_core.train.config import TrainConfig
from sdpose_core.train.muon import Muon, hidden_matrices
from sdpose_core.train.objective import Objective


def make_optimiser(objective: Objective, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam, AdamW or Muon; the latter two decay only matrices and convolutions."""
    settings = config.optimiser
    hidden = hidden_matrices(objective.student) if settings.name == "muon" else []
    taken = {id(p) for p in hidden}
    rest = [p for p in objective.parameters() if p.requires_grad and id(p) not in taken]
    decayed = [p for p in rest if p.ndim > 1]
    plain = [p for p in rest if p.ndim <= 1]
    rate = config.stages[0].rate
    if settings.name == "adam":
        return torch.optim.Adam(
            [*decayed, *plain], lr=rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=settings.betas)
    for group in groups:
        group["muon"] = False
    groups.append(
        {
            "params": hidden,
            "weight_decay": settings.weight_decay,
            "muon": True,
            "scale": settings.muon_scale,
        }
    )
    return Muon(groups, lr=rate, betas=settings.betas)
