"""`sdpose export`: a student for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    output: Annotated[
        Path,
        typer.Option(
            help="What to write: .onnx, .xml for OpenVINO (weights beside it), or .torchscript."
        ),
    ],
    student: Annotated[
        str, typer.Option(help="Student to export, a name or a file.")
    ] = "sdpose-lite",
    format: Annotated[
        str | None, typer.Option(help="onnx, openvino or torchscript; unset: by the name's ending.")
    ] = None,
    keypoints: Annotated[
        bool,
        typer.Option(
            "--keypoints",
            help="uint8 crops in, keypoints (crop pixels) and scores out; else float crops in, "
            "heatmaps out.",
        ),
    ] = False,
    layout: Annotated[
        str, typer.Option(help="With --keypoints, of the crops: nchw or nhwc.")
    ] = "nchw",
    cycles: Annotated[
        int | None, typer.Option(min=0, help="Cycles that the network runs; its own if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a student as ONNX, OpenVINO or TorchScript for any batch size, and check the file."""
    from sdpose_core.checkpoints import load_student, training_facts
    from sdpose_core.export import export_student, files_of, format_of
    from sdpose_core.files.outputs import check_free, check_outputs, only_run

    kind = format_of(output, format)
    if not output.parent.is_dir():
        raise ValueError(f"{output.parent}: no such folder")
    check_outputs(files_of(output, kind), [Path(student)])
    with only_run(output):
        check_free(files_of(output, kind), force)
        network = load_student(student)
        facts = training_facts(student)
        count = network.config.cycles.check(cycles)
        worst = export_student(
            network,
            output,
            format=kind,
            cycles=count,
            keypoints=keypoints,
            layout=layout,
            facts={key: facts[key] for key in ("licence", "origin") if key in facts},
        )
    what = "keypoints" if keypoints else "heatmaps"
    unit = " pixels" if keypoints else ""
    typer.echo(
        f"{output}: {kind}, {student}, {count} cycle{'' if count == 1 else 's'}, {what}, any batch "
        f"size; differs from the student by at most {worst:.2g}{unit}"
    )
