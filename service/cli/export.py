"""`sdpose export`: a student for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    target: Annotated[
        Path, typer.Argument(help="What to write: .onnx, or .xml for OpenVINO (weights beside it).")
    ],
    student: Annotated[
        str, typer.Option(help="Student to export, a name or a file.")
    ] = "sdpose-lite",
    cycles: Annotated[
        int | None, typer.Option(min=0, help="Cycles that the network runs; its own if not given.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a student as ONNX or OpenVINO: RGB crops (B, 3, 256, 192) 0..255 in, heatmaps out."""
    from sdpose_core.checkpoints import load_student
    from sdpose_core.export import export_student

    if target.exists() and not force:
        raise ValueError(f"{target} exists; pass --force to replace it")
    network = load_student(student)
    count = network.config.cycles.check(cycles)
    export_student(network, target, cycles=count)
    typer.echo(f"{target}: {student}, {count} cycle{'' if count == 1 else 's'}, any batch size")
