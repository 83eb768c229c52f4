"""The state of a run on disk: everything that resuming needs, written whole or not at all."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

STATE_NAME = "state.pt"


@dataclass
class Counters:
    """Where a run stands. ``samples`` are global over all processes; ``stage_*`` count from the
    start of the stage; ``best`` are the best scores so far by input size."""

    stage: int = 0
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    stage_step: int = 0
    stage_samples: int = 0
    stage_seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)


def write_state(folder: Path, counters: Counters, parts: dict[str, Any]) -> None:
    """Write ``state.pt`` of a run folder atomically; ``parts`` are state dicts by name."""
    partial = folder / f".{STATE_NAME}.{os.getpid()}.partial"
    try:
        torch.save({"counters": asdict(counters), **parts}, partial)
        os.replace(partial, folder / STATE_NAME)
    finally:
        partial.unlink(missing_ok=True)


def read_state(folder: Path) -> tuple[Counters, dict[str, Any]]:
    """What ``write_state`` wrote; raises ``FileNotFoundError`` when the run has no state yet."""
    path = folder / STATE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path}: nothing to resume from")
    content = torch.load(path, map_location="cpu", weights_only=True)
    return Counters(**content.pop("counters")), content
