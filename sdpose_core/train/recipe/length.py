"""Fitting a recipe into a given time."""

from __future__ import annotations

from dataclasses import replace

from sdpose_core.train.recipe.config import TrainConfig


def within_minutes(config: TrainConfig, minutes: float) -> TrainConfig:
    """The recipe shaped to ``minutes`` of computing.

    Stages given in minutes keep their proportions; if none is, every stage gets an equal share.
    The rate's schedule follows the new length.
    """
    if minutes <= 0:
        raise ValueError(f"minutes: expected more than 0, got {minutes}")
    lengths = [stage.minutes for stage in config.stages]
    known = [length for length in lengths if length is not None]
    if len(known) != len(lengths):
        known = [1.0] * len(lengths)
    shares = [length / sum(known) for length in known]
    stages = tuple(
        replace(stage, steps=None, epochs=None, minutes=minutes * share)
        for stage, share in zip(config.stages, shares, strict=True)
    )
    return replace(config, stages=stages)
