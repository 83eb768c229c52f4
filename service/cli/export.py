"""`sdpose export`: a student for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    target: Annotated[
        Path, typer.Argument(help="What to write: .onnx, or .xml for OpenVINO (weights beside it).")
    ],
    student: Annotated[str, typer.Option(help="Student to export, a name or a file.")] = "sdpose-t",
    cycles: Annotated[int, typer.Option(min=1, help="Cycles that the network runs.")] = 1,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a student as ONNX or OpenVINO: RGB crops (B, 3, 256, 192) 0..255 in, heatmaps out."""
    from sdpose_core.checkpoints import load_student
    from sdpose_core.export import export_student

    if target.exists() and not force:
        raise ValueError(f"{target} exists; pass --force to replace it")
    export_student(load_student(student), target, cycles=cycles)
    typer.echo(f"{target}: {student}, {cycles} cycle{'s' if cycles > 1 else ''}, any batch size")
