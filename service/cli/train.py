"""``sdpose train``: train a student from tar shards or a COCO set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import need, reject_typed

if TYPE_CHECKING:
    from sdpose_core.train.recipe.config import TrainConfig

_BEGINNINGS = ("config", "start", "backbone_start")
"""Options that say how a run begins, which one that goes on has behind it."""


def train(
    context: typer.Context,
    config: Annotated[
        str,
        typer.Option(
            "--config", "--preset", help="A TOML file, or the name of a preset such as lite-cpu."
        ),
    ] = "lite-cpu",
    run: Annotated[Path | None, typer.Option(help="Run folder; runs/<name> if not given.")] = None,
    shards: Annotated[
        list[str] | None, typer.Option(help="Tar shards: files, folders or globs.")
    ] = None,
    coco_annotations: Annotated[
        str | None, typer.Option(help="COCO keypoint file to train on instead of shards.")
    ] = None,
    coco_images: Annotated[str | None, typer.Option(help="Folder of its images.")] = None,
    start: Annotated[
        str | None, typer.Option(help="Checkpoint to begin with (.safetensors or official .pth).")
    ] = None,
    dev_annotations: Annotated[
        str | None, typer.Option(help="COCO keypoint file to score on while training.")
    ] = None,
    dev_images: Annotated[str | None, typer.Option(help="Folder of its images.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Computing time of the whole run; stages share it in proportion."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Stop after this many steps.")] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine, one a GPU.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines of the run.")] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes on a Ray cluster, one a GPU where it has any; all start again from the "
            "saved state when one dies.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Of the cluster's head, such as 10.0.0.1:6379; RAY_ADDRESS if not given, and "
            "without either a Ray of this machine."
        ),
    ] = None,
    backbone_start: Annotated[
        str | None,
        typer.Option(help="File or preset of a pretrained backbone, taken if it fits."),
    ] = None,
    coco_cache: Annotated[
        str | None, typer.Option(help="Folder for the packed COCO crops; in the run if not given.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            help="Continue the run in the folder with the config saved there; other options hold "
            "for this call only."
        ),
    ] = False,
) -> None:
    """Train a student; the run folder holds its config, logs, state and best weights."""
    import json
    from contextlib import ExitStack
    from functools import partial

    from rich.console import Console

    need("train", "lightning_fabric", "tensorboard")
    from sdpose_core.files.outputs import check_outputs, only_run
    from sdpose_core.train.loop.hardware import is_first_process
    from sdpose_core.train.loop.state import STATE_NAME, run_files

    data = {
        "shards": tuple(shards or ()) if shards or coco_annotations is not None else None,
        "coco_annotations": coco_annotations,
        "coco_images": coco_images,
        "coco_cache": coco_cache,
        "dev_annotations": dev_annotations,
        "dev_images": dev_images,
    }
    others = {"start": start, "backbone_start": backbone_start, "devices": devices, "nodes": nodes}
    try:
        if shards and coco_annotations is not None:
            raise ValueError("--shards and --coco-annotations: give one of them")
        if ray_workers is None and ray_address is not None:
            raise ValueError("--ray-address needs --ray-workers")
        if ray_workers is not None and (devices is not None or nodes is not None):
            raise ValueError("--ray-workers sets the processes; --devices and --nodes cannot")
        if resume:
            why = "cannot go with --resume, which continues the run with its own settings"
            reject_typed(context, _BEGINNINGS, why)
        begun = _resumed(run) if resume else _named(config)
        settings = _changed(begun, data, others, minutes)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    folder = run or Path("runs") / settings.name
    console = Console(quiet=not is_first_process())
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    with ExitStack() as held:
        if is_first_process():  # the others are of the same run
            if not resume:
                check_outputs(run_files(folder), _inputs(config, settings))
            held.enter_context(only_run(folder, folder=True))
        if not resume and (folder / STATE_NAME).exists():
            raise typer.BadParameter(f"{folder} holds a run: --resume it or give another --run")
        console.print_json(json.dumps(settings.to_dict()))
        if ray_workers is None:
            _train_here(settings, folder, resume, steps, say)
        else:
            _train_on_ray(settings, folder, ray_workers, ray_address, steps, say)
    say(f"run folder: {folder}")


def _resumed(run: Path | None) -> TrainConfig:
    from sdpose_core.train.loop.state import read_config

    if run is None:
        raise ValueError("--resume needs --run")
    return read_config(run)


def _named(config: str) -> TrainConfig:
    from sdpose_core.train.recipe.files import load_config
    from sdpose_core.train.recipe.presets import PRESETS, preset_config

    if config in PRESETS:
        return preset_config(config)
    if not Path(config).exists():
        known = ", ".join(PRESETS)
        raise ValueError(f"{config}: neither a file nor a preset; presets are {known}")
    return load_config(Path(config))


def _changed(
    settings: TrainConfig, data: dict[str, Any], others: dict[str, Any], minutes: float | None
) -> TrainConfig:
    """The settings with what the command line gives; None leaves a value unchanged."""
    from dataclasses import replace

    from sdpose_core.train.recipe.config import within_minutes

    given = {name: value for name, value in data.items() if value is not None}
    changed = {name: value for name, value in others.items() if value}
    settings = replace(settings, data=replace(settings.data, **given), **changed)
    return settings if minutes is None else within_minutes(settings, minutes)


def _inputs(config: str, settings: TrainConfig) -> list[Path]:
    """The files that a run reads, if named one by one."""
    data = settings.data
    named = [config, settings.start, settings.backbone_start]
    named += [data.coco_annotations, data.dev_annotations]
    return [Path(name) for name in named if name]


def _train_here(
    settings: TrainConfig, folder: Path, resume: bool, steps: int | None, say: Callable[[str], None]
) -> None:
    from sdpose_core.train.loop.hardware import close_process_group
    from sdpose_core.train.loop.run import prepare
    from service.cli.console import stop_on_interrupt

    try:
        trainer = prepare(settings, folder, resume=resume, say=say)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    try:
        with stop_on_interrupt(trainer.stop):
            trainer.run(stop_after_steps=steps)
    finally:
        close_process_group()
    if trainer.stopping:
        say("stopped; --resume continues")


def _train_on_ray(
    settings: TrainConfig,
    folder: Path,
    workers: int,
    address: str | None,
    steps: int | None,
    say: Callable[[str], None],
) -> None:
    need("ray", "ray")
    from sdpose_core.hardware.ray_cluster import ClusterError, cluster
    from sdpose_core.train.on_ray import train_on_ray
    from service.cli.console import stop_on_interrupt

    try:
        with cluster(address), stop_on_interrupt() as stopping:
            say(f"training on Ray; losses and scores: {folder / 'log.csv'}")
            step = train_on_ray(settings, folder, workers=workers, steps=steps, stopping=stopping)
            stopped = stopping()
    except ClusterError as error:
        raise typer.BadParameter(str(error)) from error
    say(f"reached step {step}")
    if stopped:
        say("stopped; --resume continues")
