"""`sdpose convert-detector`: an ultralytics detector as one of our files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert_detector(
    source: Annotated[
        Path, typer.Argument(help="YOLOv8, YOLO11 or YOLO26 detection model (.pt) with a person.")
    ],
    target: Annotated[Path, typer.Argument(help="File to write (.safetensors).")],
) -> None:
    """Keep the person part of an ultralytics .pt as a file that is safe to load.

    The result is plain numbers in fp16 with the plan of the network beside them: loading it runs
    no code from the file, as loading a pickle could. Use it with --detector TARGET.
    """
    if target.suffix != ".safetensors":
        typer.echo(
            f"sdpose convert-detector: {target}: the name must end in .safetensors", err=True
        )
        raise typer.Exit(2)

    from sdpose_core.detector.embed import write_embedded
    from sdpose_core.detector.protocol import DetectorError
    from sdpose_core.files.outputs import check_outputs

    check_outputs([target], [source])
    try:
        size = write_embedded(source, target)
    except (DetectorError, OSError) as error:
        typer.echo(f"sdpose convert-detector: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{target}: {size / 1e6:.1f} MB", err=True)
