"""`sdpose convert` and `sdpose convert-detector`: published models become files of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[Path, typer.Argument(help="An official SDPose .pth, or a file of ours.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    precision: Annotated[str, typer.Option(help="How weights are stored: fp16 or fp32.")] = "fp16",
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Convert an official SDPose checkpoint to a self-describing safetensors file."""
    import torch

    from sdpose_core.checkpoints import build_student, read_checkpoint, save_student
    from sdpose_core.files.outputs import check_outputs

    stored = {"fp16": torch.float16, "fp32": torch.float32}
    if precision not in stored:
        raise ValueError(f"--precision {precision}: expected fp16 or fp32")
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the target's name must end in .safetensors")
    if target.exists() and not force:
        raise ValueError(f"{target} exists; pass --force to replace it")
    check_outputs([target], [source])
    checkpoint = read_checkpoint(source)
    student = build_student(checkpoint, str(source))
    save_student(student, target, checkpoint.training, dtype=stored[precision])
    size = target.stat().st_size / 1e6
    typer.echo(f"{target}: {student.config.name}, {precision}, {size:.1f} MB")


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
