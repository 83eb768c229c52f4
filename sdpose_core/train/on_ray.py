"""Training on a Ray cluster: the same loop, its processes started by Ray Train.

Ray starts a process on each worker, and each finds in its environment what ``torchrun`` would have
put there; so the loop is the one of every run. When a process dies, Ray starts all of them again,
and they go on from the state in the run folder, which every machine must see.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.collective import broadcast_from_rank_zero
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from sdpose_core.hardware.ray_cluster import ClusterError
from sdpose_core.messages import error_line
from sdpose_core.train.loop.hardware import close_process_group
from sdpose_core.train.loop.run import prepare
from sdpose_core.train.loop.trainer import Trainer
from sdpose_core.train.recipe.config import TrainConfig


@dataclass(frozen=True)
class _Run:
    settings: TrainConfig
    folder: str
    steps: int | None
    stop: Any


class StopRequest:
    """Whether the run should stop: set by the command, read by its processes."""

    def __init__(self) -> None:
        self._stop = False

    def stop(self) -> None:
        self._stop = True

    def is_set(self) -> bool:
        return self._stop


def train_on_ray(
    settings: TrainConfig,
    folder: Path,
    *,
    workers: int,
    steps: int | None = None,
    restarts: int = 3,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Train, or go on with, the run in `folder` on the cluster that is connected to.

    Args:
        settings: of the run; devices and nodes follow from the workers.
        folder: on a file system that every worker sees.
        workers: processes, wherever Ray finds room; each takes a GPU unless the cluster has none
            or the accelerator of `settings` is ``"cpu"``.
        steps: stop after so many; None runs to the end.
        restarts: of all processes, after one died.
        stopping: checked twice a second; true ends the run after its step, and saves its state.

    Returns:
        The step the run came to.

    Raises:
        ClusterError: the cluster has not so many processors or GPUs, or the run failed.
    """
    there = ray.cluster_resources()
    accelerator = settings.accelerator
    on_gpus = accelerator != "cpu" and (accelerator != "auto" or there.get("GPU", 0) > 0)
    kind = "GPU" if on_gpus else "CPU"
    free = int(there.get(kind, 0))
    if free < workers:
        raise ClusterError(f"{workers} workers need as many {kind}s; the cluster has {free}")
    stop = ray.remote(num_cpus=0)(StopRequest).remote()
    run = _Run(settings, str(folder.resolve()), steps, stop)
    # Ray Train takes the signals of the process it is started in, so that is not this one.
    end = ray.remote(num_cpus=0, max_retries=0)(_fit).remote(run, workers, on_gpus, restarts)
    while not ray.wait([end], timeout=0.5)[0]:
        if stopping():
            ray.get(stop.stop.remote())
    try:
        step: int | str = ray.get(end)
    except ray.exceptions.RayError as error:
        raise ClusterError(f"the training on Ray failed: {error_line(error)}") from error
    if isinstance(step, str):
        raise ClusterError(step)
    return step


def _fit(run: _Run, workers: int, on_gpus: bool, restarts: int) -> int | str:
    """Start the processes, and again when one dies; what `_work` returned in the first of them."""
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    trainer = DataParallelTrainer(
        _work,
        train_loop_config={"run": run},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpus),
        run_config=RunConfig(
            name="ray",
            storage_path=run.folder,
            failure_config=FailureConfig(max_failures=restarts),
        ),
    )
    result: int | str = trainer.fit().return_value
    return result


def _work(given: dict[str, Any]) -> int | str:
    """The work of each process; returns the step it came to, or why the run cannot begin."""
    run: _Run = given["run"]
    context = ray.train.get_context()
    rank, everywhere = str(context.get_world_rank()), context.get_world_size()
    # Each process sees one machine with one GPU: Ray shows it no GPU but its own.
    os.environ.update(
        {
            "WORLD_SIZE": str(everywhere),
            "RANK": rank,
            "GROUP_RANK": rank,
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "TORCHELASTIC_RUN_ID": "ray",
            **_meeting_place(),
        }
    )
    settings = replace(run.settings, devices=1, nodes=everywhere)
    folder = Path(run.folder)
    try:
        trainer = prepare(settings, folder, resume=(folder / "state.pt").exists())
    except (ValueError, OSError) as error:  # raised, Ray would try the same again
        return str(error)
    ended = threading.Event()
    threading.Thread(
        target=_stop_when_requested, args=(trainer, run.stop, ended), daemon=True
    ).start()
    try:
        trainer.run(stop_after_steps=run.steps)
    finally:
        ended.set()
        close_process_group()
    return trainer.counters.step


def _stop_when_requested(trainer: Trainer, stop: Any, ended: threading.Event) -> None:
    while not ended.wait(1):
        if ray.get(stop.is_set.remote()):
            trainer.stop()
            return


def _meeting_place() -> dict[str, str]:
    """Address and port of the first process, the same for all."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        mine = {
            "MASTER_ADDR": ray.util.get_node_ip_address(),
            "MASTER_PORT": str(probe.getsockname()[1]),
        }
    found: dict[str, str] = broadcast_from_rank_zero(mine)
    return found
