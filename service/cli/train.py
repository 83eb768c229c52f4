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
_OF_RECIPES = (
    "dev_annotations",
    "dev_images",
    "devices",
    "nodes",
    "ray_workers",
    "backbone_start",
    "coco_cache",
)
"""Options that change a recipe, which a run on labels makes itself."""


def train(
    context: typer.Context,
    labels: Annotated[
        Path | None,
        typer.Argument(
            help="Labels to train on: a COCO keypoint file, or the data.yaml of YOLO pose labels."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Argument(help="Folder of the images of a COCO file.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "--preset",
            help="A recipe: a TOML file, or the name of a preset; lite for shards.",
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder; runs/<name> if not given.")] = None,
    shards: Annotated[
        list[str] | None, typer.Option(help="Tar shards: files, folders or globs.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Checkpoint to begin with (.safetensors or official .pth).")
    ] = None,
    dev_annotations: Annotated[
        str | None, typer.Option(help="COCO keypoint file to score on while training.")
    ] = None,
    dev_images: Annotated[str | None, typer.Option(help="Folder of its images.")] = None,
    skeleton: Annotated[
        str | None,
        typer.Option(
            help="Keypoints of the labels, ready-made or a TOML file, if they do not name them."
        ),
    ] = None,
    all_layers: Annotated[
        bool,
        typer.Option(
            "--all-layers",
            help="Train the whole student on labels, as on a GPU; else its last stage on a CPU.",
        ),
    ] = False,
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
    """Train a student on your labels, or by a recipe.

    sdpose train people.json images/ starts from the student that ships and ends with a report. The
    run folder holds the best weights, all numbers, and what --resume needs.
    """
    import json
    from contextlib import ExitStack
    from functools import partial

    from rich.console import Console

    need("train", "lightning_fabric", "tensorboard")
    from sdpose_core.files.outputs import check_outputs, only_run
    from sdpose_core.train.loop.hardware import is_first_process
    from sdpose_core.train.loop.state import STATE_NAME, run_files
    from sdpose_core.train.tuning.tune import own_files

    try:
        _check_together(labels, images, shards, config, skeleton, all_layers, resume)
        if ray_workers is None and ray_address is not None:
            raise ValueError("--ray-address needs --ray-workers")
        if ray_workers is not None and (devices is not None or nodes is not None):
            raise ValueError("--ray-workers sets the processes; --devices and --nodes cannot")
        if resume:
            why = "cannot go with --resume, which continues the run with its own settings"
            reject_typed(context, _BEGINNINGS, why)
        own = labels is not None and config is None
        if own:
            why = "belongs to a recipe: give --config, or leave it out"
            reject_typed(context, _OF_RECIPES, why)
        begun = None if own else _resumed(run) if resume else _named(config or "lite")
        data = {
            "shards": tuple(shards or ()) if shards or labels is not None else None,
            "coco_annotations": str(labels) if labels is not None else None,
            "coco_images": str(images) if images is not None else None,
            "coco_cache": coco_cache,
            "dev_annotations": dev_annotations,
            "dev_images": dev_images,
        }
        others = {
            "start": start, "backbone_start": backbone_start, "devices": devices, "nodes": nodes
        }  # fmt: skip
        settings = begun and _changed(begun, data, others, minutes)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    name = settings.name if settings else _name_of(labels)
    folder = run or Path("runs") / name
    console = Console(quiet=not is_first_process())
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    with ExitStack() as held:
        if is_first_process():  # the others are of the same run
            if not resume:
                files = [*run_files(folder), *(own_files(folder) if own else ())]
                check_outputs(files, _inputs(config, labels, settings))
            held.enter_context(only_run(folder, folder=True))
        if not resume and (folder / STATE_NAME).exists():
            raise typer.BadParameter(f"{folder} holds a run: --resume it or give another --run")
        if settings is None:
            settings = _of_labels(labels, images, folder, start, skeleton, minutes, all_layers, say)
        else:
            console.print_json(json.dumps(settings.to_dict()))
        if ray_workers is None:
            _train_here(settings, folder, resume, steps, say)
        else:
            _train_on_ray(settings, folder, ray_workers, ray_address, steps, say)
    say(f"run folder: {folder}")


def _check_together(
    labels: Path | None,
    images: Path | None,
    shards: list[str] | None,
    config: str | None,
    skeleton: str | None,
    all_layers: bool,
    resume: bool,
) -> None:
    """Raises ``ValueError`` for arguments that cannot go together."""
    if labels is not None and shards:
        raise ValueError(f"{labels} and --shards: give one of them")
    if labels is not None and resume:
        raise ValueError(f"{labels} cannot go with --resume, which goes on with the run's own")
    if labels is not None and config is not None and images is None:
        raise ValueError(f"{labels}: a recipe needs the folder of its images after it")
    if (skeleton is not None or all_layers) and (labels is None or config is not None):
        option = "--skeleton" if skeleton is not None else "--all-layers"
        raise ValueError(f"{option} needs labels to train on, and no --config")


def _name_of(labels: Path | None) -> str:
    """The name of a run on these labels: their file's, or their folder's if that is always data."""
    assert labels is not None
    named = labels.stem if labels.stem != "data" else labels.resolve().parent.name
    return named or "labels"


def _of_labels(
    labels: Path | None,
    images: Path | None,
    folder: Path,
    start: str | None,
    skeleton: str | None,
    minutes: float | None,
    all_layers: bool,
    say: Callable[[str], None],
) -> TrainConfig:
    from sdpose_core.skeleton import find_skeleton
    from sdpose_core.train.tuning.tune import begin

    assert labels is not None
    try:
        return begin(
            labels,
            images,
            folder,
            start=start or "sdpose-lite",
            skeleton=find_skeleton(skeleton) if skeleton is not None else None,
            minutes=minutes,
            every_layer=all_layers or None,
            say=say,
        )
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error


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


def _inputs(config: str | None, labels: Path | None, settings: TrainConfig | None) -> list[Path]:
    """The files that a run reads, if named one by one."""
    named = [config, labels]
    if settings is not None:
        data = settings.data
        named += [settings.start, settings.backbone_start, data.dev_annotations]
    return [Path(name) for name in named if name]


def _train_here(
    settings: TrainConfig, folder: Path, resume: bool, steps: int | None, say: Callable[[str], None]
) -> None:
    from sdpose_core.train.loop.hardware import close_process_group
    from sdpose_core.train.loop.run import prepare
    from sdpose_core.train.tuning.tune import SURVEY
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
    elif (folder / SURVEY).exists() and trainer.finished:
        from sdpose_core.train.tuning.finish import finish

        for line in finish(settings, folder, trainer.samples.crops, say):
            say(line)


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
