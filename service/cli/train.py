"""``sdpose train``: train a student from tar shards or a COCO set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[
        str, typer.Option(help="A TOML file, or the name of a preset such as compact-cpu.")
    ] = "compact-cpu",
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
        typer.Option(help="Computing time of the whole run; stages share it as they are."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Stop after this many steps.")] = None,
    resume: Annotated[
        bool, typer.Option(help="Continue the run in the folder, with the config saved there.")
    ] = False,
) -> None:
    """Train a student; the run folder holds its config, logs, state and best weights."""
    import json
    import signal
    from dataclasses import replace

    from rich.console import Console

    from sdpose_core.train.config import TrainConfig, load_config
    from sdpose_core.train.length import within_minutes
    from sdpose_core.train.presets import PRESETS, preset_config

    try:
        if resume:
            if run is None:
                raise ValueError("--resume needs --run")
            settings = TrainConfig.from_dict(json.loads((run / "config.json").read_text()))
        else:
            settings = preset_config(config) if config in PRESETS else load_config(Path(config))
        data = settings.data
        if shards:
            data = replace(data, shards=tuple(shards))
        if coco_annotations:
            data = replace(data, coco_annotations=coco_annotations)
        if coco_images:
            data = replace(data, coco_images=coco_images)
        if dev_annotations:
            data = replace(data, dev_annotations=dev_annotations)
        if dev_images:
            data = replace(data, dev_images=dev_images)
        settings = replace(settings, data=data, start=start or settings.start)
        if minutes is not None:
            settings = within_minutes(settings, minutes)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    folder = run or Path("runs") / settings.name
    if not resume and (folder / "state.pt").exists():
        raise typer.BadParameter(f"{folder} holds a run: --resume it or give another --run")

    console = Console()
    console.print_json(json.dumps(settings.to_dict()))

    from sdpose_core.train.run import prepare

    try:
        trainer = prepare(settings, folder)
        if resume:
            trainer.resume()
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: trainer.stop())
    trainer.run(stop_after_steps=steps)
    if trainer.stopping:
        console.print("stopped; --resume continues")
    console.print(f"run folder: {folder}")
