"""Crops per second of the loader alone, of views and step alone, and of both together.

    python -m tools.bench.training --config compact-cpu --shards SHARDS --seconds 20

shows whether the loader keeps up with the device. The run's folder is a temporary one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sdpose_core.train.loop.run import prepare
from sdpose_core.train.loop.trainer import Trainer
from sdpose_core.train.recipe.presets import preset_config


def rate_of(work: Callable[[], object], crops: int, seconds: float) -> float:
    """Crops per second of ``work``, which handles ``crops`` per call; the first call is
    excluded."""
    work()
    begun, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - begun < seconds:
        work()
        calls += 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return crops * calls / (time.perf_counter() - begun)


def measure(trainer: Trainer, seconds: float) -> dict[str, float]:
    """Crops per second by name, with the first stage of the trainer's recipe."""
    stage = trainer.config.stages[0]
    inputs = trainer.inputs(stage)
    one = next(inputs)
    return {
        "loader": rate_of(lambda: next(inputs), stage.batch, seconds),
        "views": rate_of(lambda: trainer.render(one, stage), stage.batch, seconds),
        "views and step": rate_of(
            lambda: trainer.step(one, stage, stage.rate), stage.batch, seconds
        ),
        "all": rate_of(lambda: trainer.step(next(inputs), stage, stage.rate), stage.batch, seconds),
    }


def main() -> None:
    """Entry point of ``python -m tools.bench.training``."""
    parser = argparse.ArgumentParser(description="Speed of the parts of a training step.")
    parser.add_argument("--config", default="compact-cpu")
    parser.add_argument("--shards", nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    config = preset_config(given.config)
    config = replace(config, data=replace(config.data, shards=tuple(given.shards)))
    with tempfile.TemporaryDirectory() as folder:
        for name, rate in measure(prepare(config, Path(folder)), given.seconds).items():
            sys.stdout.write(f"{name}: {rate:.1f} crops/s\n")


if __name__ == "__main__":
    main()
