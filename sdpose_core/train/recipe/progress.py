"""The progress of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """The progress of a run. ``samples`` are global over all processes; ``stage_*`` count from the
    start of the stage; ``scored_samples`` is ``samples`` at the last score, ``stage_scored`` is
    ``stage_seconds`` then; ``best`` is the AP of the best student so far and
    ``best_oks`` its mean OKS, -1 without one."""

    stage: int = 0
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    stage_step: int = 0
    stage_samples: int = 0
    stage_seconds: float = 0.0
    scored_samples: int = 0
    stage_scored: float = 0.0
    best: float = -1.0
    best_oks: float = -1.0
