"""``sdpose pack``: a COCO keypoint set as tar shards of person crops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pack(
    annotations: Annotated[Path, typer.Argument(help="COCO keypoint annotation file.")],
    images: Annotated[Path, typer.Argument(help="Folder of its images.")],
    output: Annotated[Path, typer.Argument(help="Folder for the shards.")],
    source: Annotated[str, typer.Option(help="Name of the source in every sample.")] = "coco",
    per_shard: Annotated[int, typer.Option(min=1, help="Persons a shard.")] = 5000,
    quality: Annotated[int, typer.Option(min=1, max=100, help="WebP quality.")] = 80,
    wide: Annotated[
        bool,
        typer.Option(
            "--wide",
            help="Crops that hold every view of the published augmentation, at 2.7 times the size.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Order of the images.")] = 0,
) -> None:
    """Cut every labelled person out and write WebDataset shards for ``sdpose train``."""
    from rich.console import Console

    from sdpose_core.data.coco import load_coco
    from sdpose_core.data.packing import pack_new, usable_cores
    from sdpose_core.data.shards import CONTEXT_SIZE, WIDE_CONTEXT_SIZE
    from service.cli.console import Progress

    console = Console()
    try:
        found = load_coco(annotations, images, None)
        count = sum(len(image.people) for image in found)
        if count == 0:
            raise ValueError(
                f"{annotations}: no person with a labelled joint and a box in the image"
            )
        with Progress(count) as bar:
            paths = pack_new(
                found,
                output,
                source=source,
                per_shard=per_shard,
                quality=quality,
                size=WIDE_CONTEXT_SIZE if wide else CONTEXT_SIZE,
                seed=seed,
                workers=usable_cores(),
                on_person=lambda _: bar.advance(1),
            )
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    console.print(f"{count} people in {len(paths)} shards in {output}")
