"""The output of a run: students with averaged weights, and the facts saved with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sdpose_core.checkpoints import training_facts
from sdpose_core.model import Student
from sdpose_core.train.loop.scoring import AP, OKS
from sdpose_core.train.optim.ema import WeightAverage
from sdpose_core.train.recipe.config import TrainConfig
from sdpose_core.train.recipe.progress import Counters


def averaged_copy(student: Student, average: WeightAverage | None, device: torch.device) -> Student:
    """A copy with the averaged weights (its own if there is no average), in evaluation mode."""
    copied = Student(student.config)
    copied.load_state_dict(average.values if average is not None else student.state_dict())
    copied.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied.eval()


def run_facts(
    config: TrainConfig,
    counters: Counters,
    *,
    crops: int,
    averaged: bool,
    scores: dict[str, float],
) -> dict[str, Any]:
    """The training facts in a saved student's file, JSON values."""
    return {
        "run": config.name,
        "start": Path(config.start).name if config.start else None,
        "crops": crops,
        "steps": counters.step,
        "samples": counters.samples,
        "minutes": round(counters.seconds / 60, 1),
        "averaged": averaged,
        "scores": scores,
        "config": {k: v for k, v in config.to_dict().items() if k not in ("data", "start")},
    }


def reject_broken_weights(objective: nn.Module, fabric: Fabric, step: int, folder: Path) -> None:
    """Raise in every process before broken weights replace good ones.

    Raises:
        ValueError: a value is no longer finite.
    """
    tensors = [t for t in objective.state_dict().values() if t.is_floating_point()]
    broken = (~torch.stack([t.isfinite().all() for t in tensors])).any().float()
    if fabric.world_size > 1:
        received = fabric.all_reduce(broken, reduce_op="sum")
        assert isinstance(received, Tensor)
        broken = received
    if broken > 0:
        raise ValueError(
            f"the weights are no longer finite after step {step}; they were not saved. "
            f"Start again from {folder / 'best.safetensors'} or another checkpoint with a lower "
            "rate, or with optimiser.clip"
        )


def best_kept(folder: Path) -> tuple[float, float]:
    """AP and mean OKS of the best student in a run's folder, -1 if there is none."""
    scores = training_facts(folder / "best.safetensors").get("scores", {})
    return float(scores.get(AP, -1.0)), float(scores.get(OKS, -1.0))
