"""`sdpose predict`: poses of images and videos on disk."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How results are written."""

    jsonl = "jsonl"
    coco = "coco"
    csv = "csv"


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, videos, folders, globs, or - for an image from standard input.",
        ),
    ],
    format: Annotated[
        Format,
        typer.Option(
            "--format", "-f", help="JSON lines, one COCO keypoint file, or CSV (a row a person)."
        ),
    ] = Format.jsonl,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the results, not the screen.")
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Folder for images and videos with the skeletons drawn in."),
    ] = None,
    student: Annotated[str, typer.Option(help="Pose model, a name or a path.")] = "sdpose-lite",
    detector: Annotated[
        str, typer.Option(help="Person detector: embedded, a path, or a name as yolo11n.pt.")
    ] = "embedded",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    backend: Annotated[str, typer.Option(help="auto, torch or openvino.")] = "auto",
    cycles: Annotated[
        int | None, typer.Option(min=0, help="Transformer cycles; the student's own if not given.")
    ] = None,
    flip_test: Annotated[
        bool, typer.Option("--flip-test", help="Also estimate the mirrored person; twice the work.")
    ] = False,
    max_people: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of people per image, the best first.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out people that score lower.")
    ] = None,
    track: Annotated[
        bool,
        typer.Option("--track", help="Give the people of a video ids over time and steady joints."),
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images or frames processed at once.")] = 4,
) -> None:
    """Find the people in images and videos and write their keypoints.

    Results go to standard output, or to --output once they are complete. A file that cannot be
    used is named on standard error and skipped, and the exit code is 1. Ctrl-C stops after the
    work in hand, with whole lines written and exit code 130.
    """
    from functools import partial

    from sdpose_core.io.sources import find_sources
    from sdpose_core.io.writers import WRITERS
    from service.cli.console import Progress, Sink, SinkError, stop_on_interrupt

    def report(line: str) -> None:
        progress.say(f"sdpose predict: {line}")

    sources, problems = find_sources(inputs)
    progress = Progress(images=sum(not source.is_video for source in sources))
    for problem in problems:
        report(problem)
    if not sources:
        raise typer.Exit(1)

    from sdpose_core import PoseEstimator

    try:
        sink = Sink(output)
        estimator = PoseEstimator.from_pretrained(student, detector, device, backend=backend)
    except (ValueError, SinkError) as error:
        report(str(error))
        raise typer.Exit(2) from None

    from sdpose_core.predict import Interrupted, Prediction
    from sdpose_core.tracking import TrackingConfig

    writer = WRITERS[format.value](sink.put)
    estimate = partial(
        estimator.estimate,
        flip_test=flip_test,
        cycles=cycles,
        max_people=max_people,
        min_score=min_score,
    )
    status = 0
    try:
        with progress, stop_on_interrupt() as stopping:
            prediction = Prediction(
                estimate,
                writer,
                batch_size,
                overlay,
                report,
                progress.advance,
                progress.expect,
                stopping,
                TrackingConfig() if track else None,
            )
            try:
                prediction.run(sources)
            except Interrupted:
                status = 130
            writer.finish()
        if status:
            kept = sink.leave_unfinished()
            report(f"interrupted{f'; the results so far are in {kept}' if kept else ''}")
        else:
            sink.finish()
            status = int(bool(problems) or prediction.failures > 0)
    except BrokenPipeError:  # the reader of our output is gone: nothing left to do
        sink.abandon()
        status = 141
    except OSError as error:
        report(f"the results cannot be written: {error.strerror}")
        status = 1
    raise typer.Exit(status)
