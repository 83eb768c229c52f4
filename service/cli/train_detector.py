"""``sdpose train-detector``: fine-tune the person detector, and measure it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train_detector(
    data: Annotated[Path, typer.Argument(help="data.yaml of a YOLO-format person set.")],
    output: Annotated[Path, typer.Option(help="Folder of the run and its result.")] = Path(
        "runs/detector"
    ),
    start: Annotated[str, typer.Option(help="Ultralytics .pt to begin with.")] = "yolo11n.pt",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the set.")] = 50,
    minutes: Annotated[
        float | None, typer.Option(help="Length in minutes instead of epochs.")
    ] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Longest side in pixels.")] = 640,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 16,
    rate: Annotated[float, typer.Option(help="Learning rate (AdamW).")] = 0.001,
    freeze: Annotated[int, typer.Option(min=0, help="First layers that stay unchanged.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, 0 or 0,1,...")] = "auto",
    annotations: Annotated[
        Path | None, typer.Option(help="COCO person file to measure the result on.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of its images.")] = None,
) -> None:
    """Fine-tune on people with ultralytics' own trainer; writes person.safetensors."""
    from rich.console import Console

    from service.cli.options import need

    need("train", "yaml", "pycocotools")
    from sdpose_core.evaluate.detection import measure_people, read_annotated
    from sdpose_core.files.outputs import only_run
    from sdpose_core.train.detector import DetectorRecipe
    from sdpose_core.train.detector import train_detector as fine_tune

    console = Console()
    recipe = DetectorRecipe(
        start=start,
        epochs=epochs,
        minutes=minutes,
        image_size=image_size,
        batch=batch,
        rate=rate,
        freeze=freeze,
        workers=workers,
        device=device,
    )
    if (annotations is None) != (images is None):
        raise typer.BadParameter("--annotations and --images go together")
    # Read first: a wrong name should not cost the training before it.
    truth = read_annotated(annotations, images) if annotations and images else None
    with only_run(output, folder=True):
        result = fine_tune(data, recipe, output)
    console.print(f"detector: {result}")
    if truth is None:
        return
    from sdpose_core.detector import load_detector

    found = load_detector(result, min_score=0.001, input_size=image_size)
    numbers = measure_people(found, truth)
    console.print(
        f"{len(truth.pictures)} images: person AP50 {numbers.ap50:.3f}, AP50:95 "
        f"{numbers.ap:.3f}, recall of people taller than 96 px at 0.25 {numbers.tall_recall:.3f}"
    )
