"""`sdpose convert`, `convert-detector`, `convert-results`: from one kind of file to another."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import MinKeypointScore, need


def convert(
    source: Annotated[Path, typer.Argument(help="An official SDPose .pth, or a file of ours.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    precision: Annotated[str, typer.Option(help="How weights are stored: fp16 or fp32.")] = "fp16",
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Convert an official SDPose checkpoint to a self-describing safetensors file."""
    import torch

    from sdpose_core.checkpoints import build_student, read_checkpoint, save_student
    from sdpose_core.files.outputs import check_free, check_outputs

    stored = {"fp16": torch.float16, "fp32": torch.float32}
    if precision not in stored:
        raise ValueError(f"--precision {precision}: expected fp16 or fp32")
    if target.suffix != ".safetensors":
        raise ValueError(
            f"{target}: the target's name must end in .safetensors; results of predict go with "
            "sdpose convert-results"
        )
    check_outputs([target], [source])
    check_free([target], force)
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


def convert_results(
    source: Annotated[
        Path,
        typer.Argument(help="Results of predict: .jsonl, .json (COCO), .csv, .parquet or parts."),
    ],
    target: Annotated[Path, typer.Argument(help="File to write; its suffix decides as well.")],
    min_keypoint_score: MinKeypointScore = 0.3,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Convert results of sdpose predict or stream from one format to another.

    Each format holds what it has room for: CSV no images without people, and only Parquet the
    inputs that failed.
    """
    from sdpose_core.commands.tally import Tally
    from sdpose_core.files.outputs import check_free, check_outputs
    from sdpose_core.io.results.formats import PARQUET, format_of, open_results, open_writer
    from sdpose_core.io.results.record import Record
    from service.cli.console import Sink, draft_of

    format = format_of(target)
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    if PARQUET in (format, source.suffix.lower()) or source.is_dir():
        need("archive", "pyarrow")
    check_outputs([target, draft_of(target)], [source])
    check_free([target], force)
    results = open_results(source)
    tally, began = Tally(), time.monotonic()
    with ExitStack() as stack:
        stack.callback(draft_of(target).unlink, missing_ok=True)
        sink = stack.enter_context(Sink(target))
        made_with = {"converted_from": source.name}
        writer = open_writer(
            format,
            sink,
            results.skeleton,
            min_keypoint_score=min_keypoint_score,
            made_with=made_with,
        )
        for result in results.records:
            if isinstance(result, Record):
                writer.write(result)
                tally.add(result.frame, len(result.poses))
            else:
                writer.skip(*result)
                tally.failures.append(result[1])
        writer.finish()
        sink.store()
        sink.finish()
    summary = tally.sentence(time.monotonic() - began, [target])
    typer.echo(f"sdpose convert-results: {summary}", err=True)
