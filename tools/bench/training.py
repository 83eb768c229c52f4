"""`python -m tools.bench training`: the loader alone, views and step alone, and both together."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

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
        "views": rate_of(lambda: trainer.render(one), stage.batch, seconds),
        "views and step": rate_of(lambda: trainer.step(one, stage.rate), stage.batch, seconds),
        "all": rate_of(lambda: trainer.step(next(inputs), stage.rate), stage.batch, seconds),
    }


def main(
    shards: Annotated[list[str], typer.Option(help="Shards; may be repeated.")],
    config: Annotated[str, typer.Option(help="Recipe.")] = "lite",
    seconds: Annotated[float, typer.Option(help="Length of one measurement.")] = 20.0,
) -> None:
    """Whether the loader keeps up with the device; the run's folder is a temporary one."""
    recipe = preset_config(config)
    recipe = replace(recipe, data=replace(recipe.data, shards=tuple(shards)))
    with tempfile.TemporaryDirectory() as folder:
        for name, rate in measure(prepare(recipe, Path(folder)), seconds).items():
            typer.echo(f"{name}: {rate:.1f} crops/s")
