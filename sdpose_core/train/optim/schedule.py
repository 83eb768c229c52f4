"""The learning rate as a function of the stage's progress."""

from __future__ import annotations

import math

from sdpose_core.train.recipe.config import StageConfig, TrainConfig
from sdpose_core.train.recipe.progress import Counters


def stage_progress(
    stage: StageConfig, steps: int, seconds: float, samples: int, pass_length: int
) -> float:
    """The stage's progress, 0 at its start and >= 1 at its end.

    ``steps``, ``samples`` and ``seconds`` of computing are counted from the stage's start;
    ``pass_length`` is the number of samples of one epoch.
    """
    if stage.steps is not None:
        return steps / stage.steps if stage.steps > 0 else 1.0
    if stage.epochs is not None:
        return samples / (stage.epochs * pass_length)
    assert stage.minutes is not None
    return seconds / (60 * stage.minutes)


def learning_rate(stage: StageConfig, steps: int, progress: float) -> float:
    """The rate of the step after ``steps`` steps of the stage, at ``progress`` of it."""
    progress = min(progress, 1.0)
    rate = stage.rate
    if stage.schedule == "steps":
        rate *= 0.1 ** sum(progress >= m for m in stage.milestones)
    elif stage.schedule == "hold_cosine" and progress > stage.hold:
        share = (progress - stage.hold) / max(1e-9, 1 - stage.hold)
        rate *= stage.final + (1 - stage.final) * 0.5 * (1 + math.cos(math.pi * share))
    if steps < stage.warmup_steps:
        start = stage.warmup_start
        rate *= start + (1 - start) * steps / stage.warmup_steps
    return rate


def score_due(config: TrainConfig, counters: Counters, seconds: float, pass_length: int) -> bool:
    """Whether to score now, ``seconds`` of computing into the stage."""
    if config.evaluate_epochs is None:
        return seconds - counters.stage_scored >= 60 * config.evaluate_minutes
    every = config.evaluate_epochs * pass_length
    return counters.samples // every > counters.scored_samples // every
