"""`sdpose predict`: poses of images and videos on disk."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import (
    Backend,
    Detector,
    DetectorClasses,
    Device,
    MinScore,
    Models,
    Student,
    Suppress,
    need,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdpose_core.io.sources import Source
    from service.cli.console import Progress


class Format(StrEnum):
    """How results are written."""

    jsonl = "jsonl"
    coco = "coco"
    csv = "csv"
    parquet = "parquet"


class Engine(StrEnum):
    """Where the work is done."""

    embedded = "embedded"
    ray = "ray"


def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Images, videos, folders, globs, addresses (https://, s3://; a prefix is a "
            "folder), or - for an image from standard input.",
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            help="JSON lines, one COCO keypoint file, CSV (a row per person), or Parquet for "
            "archives (a row per image). By default what --output ends in, or JSON lines.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File for the results, not the screen. For Parquet also a folder (ends in /), "
            "on disk or in a store.",
        ),
    ] = None,
    listed: Annotated[
        str | None,
        typer.Option("--list", help="File or address with more inputs, one per line."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Parquet: do only what the output does not hold yet.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="With --resume: also do again the inputs that failed."),
    ] = False,
    engine: Annotated[
        Engine, typer.Option(help="Parquet: work in this process, or on a Ray cluster.")
    ] = Engine.embedded,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Ray: head of the cluster; without one a Ray is started here."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Ray: most workers; else one a GPU, or one a machine without."),
    ] = None,
    part_size: Annotated[
        int, typer.Option(min=1, help="Parquet: images a part; at most a part is done again.")
    ] = 500,
    readers: Annotated[
        int | None,
        typer.Option(min=1, help="Images read at once: 2 from disk, 16 from addresses if not set."),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Folder for images and videos with the skeletons drawn in."),
    ] = None,
    student: Student = "sdpose-lite",
    detector: Detector = "embedded",
    detector_classes: DetectorClasses = "",
    device: Device = "auto",
    backend: Backend = "auto",
    cycles: Annotated[
        int | None, typer.Option(min=0, help="Transformer cycles; the student's own if not given.")
    ] = None,
    flip_test: Annotated[
        bool, typer.Option("--flip-test", help="Also estimate the mirrored person; twice the work.")
    ] = False,
    max_people: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of people per image, the best first.")
    ] = None,
    min_score: MinScore = None,
    suppress: Suppress = True,
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
    from sdpose_core.commands.predict import check_drawings, drawings_in
    from sdpose_core.files.outputs import OutputError, check_outputs
    from sdpose_core.io.sources import find_sources, paths_of, read_list
    from service.cli.console import Progress, draft_of

    progress = Progress(command="sdpose predict")
    report = progress.report
    chosen = format or _format_of(output)
    given = [*(inputs or ()), *(read_list(listed) if listed else ())]
    if not given:
        raise typer.BadParameter("nothing to work on: give an INPUT or --list")
    _check(chosen, output, overlay, resume, retry_failed, engine)
    sources, problems = find_sources(given, report)
    for problem in problems:
        report(problem)
    if not sources:
        raise typer.Exit(1)
    models = Models(student, detector, device, backend, detector_classes=detector_classes)
    drawings = None if overlay is None else drawings_in(overlay, sources)
    outputs = [*(drawings or ()), *([Path(output)] if output else ())]
    if output and chosen is not Format.parquet:
        outputs.append(draft_of(Path(output)))
    try:
        check_drawings(drawings or (), sources)
        listing = [Path(listed)] if listed else []
        check_outputs(outputs, [*paths_of(sources), *listing, *models.files])
    except OutputError as error:
        report(str(error))
        raise typer.Exit(2) from None
    people = {
        "flip_test": flip_test,
        "cycles": cycles,
        "max_people": max_people,
        "min_score": min_score,
        "suppress": suppress,
    }
    readers = readers or (16 if any(source.remote for source in sources) else 2)
    if chosen is Format.parquet:
        from service.cli.archive import predict_archive

        try:
            need("archive", "pyarrow", "fsspec")
            from sdpose_core.commands.archive.work import ArchiveOptions

            status = predict_archive(
                sources,
                output or "",
                ArchiveOptions(asdict(models), people, track, batch_size, readers),
                progress,
                resume=resume,
                retry_failed=retry_failed,
                part_size=part_size,
                on_ray=engine is Engine.ray,
                ray_address=ray_address,
                workers=workers,
            )
        except (ValueError, RuntimeError) as error:
            report(str(error))
            raise typer.Exit(2) from None
    else:
        options: dict[str, Any] = {"batch_size": batch_size, "readers": readers}
        options["drawings"] = drawings
        if track:
            from sdpose_core.tracking import TrackingConfig

            options["tracking"] = TrackingConfig()
        status = _to_text(chosen, output, sources, models, people, options, progress)
    raise typer.Exit(status or int(bool(problems)))


def _to_text(
    chosen: Format,
    output: str | None,
    sources: Sequence[Source],
    models: Models,
    people: dict[str, Any],
    options: dict[str, Any],
    progress: Progress,
) -> int:
    """Writes the people of the sources as text; returns the exit status.

    `people`: arguments of `PoseEstimator.estimate`; `options`: of `Prediction`.
    """
    from sdpose_core.commands.predict import Interrupted, Prediction
    from sdpose_core.io.writers import WRITERS
    from service.cli.console import Sink, SinkError, stop_on_interrupt

    progress.expect(sum(not source.named_video for source in sources))
    interrupted = False
    try:
        with Sink(Path(output) if output else None) as sink:
            estimator = models.estimator()
            writer = WRITERS[chosen.value](sink.put, estimator.skeleton)
            with progress, stop_on_interrupt(progress.stop):
                prediction = Prediction(
                    partial(estimator.estimate, **people),
                    writer,
                    watch=progress,
                    **options,
                )
                try:
                    prediction.run(sources)
                except Interrupted:
                    interrupted = True
                writer.finish()
            if interrupted:
                kept = sink.leave_unfinished()
                where = f"; the results so far are in {kept}" if kept else ""
                progress.report(f"interrupted{where}")
                return 130
            sink.finish()
            return int(bool(prediction.failures))
    except (ValueError, SinkError) as error:
        progress.report(str(error))
        return 2
    except BrokenPipeError:  # the reader of our output is gone: nothing left to do
        sink.abandon()
        return 141
    except OSError as error:
        progress.report(f"the results cannot be written: {error.strerror}")
        return 1


def _format_of(output: str | None) -> Format:
    ending = (output or "").lower()
    if ending.endswith((".parquet", "/")):
        return Format.parquet
    return Format.csv if ending.endswith(".csv") else Format.jsonl


def _check(
    chosen: Format,
    output: str | None,
    overlay: Path | None,
    resume: bool,
    retry_failed: bool,
    engine: Engine,
) -> None:
    """Raises ``BadParameter`` for options that do not go together."""
    if retry_failed and not resume:
        raise typer.BadParameter("--retry-failed goes with --resume")
    if chosen is Format.parquet:
        if output is None:
            raise typer.BadParameter("Parquet needs --output, a file or a folder")
        if overlay is not None:
            raise typer.BadParameter("--overlay goes with the other formats, not with Parquet")
    elif resume or engine is Engine.ray:
        what = "--resume" if resume else "--engine ray"
        raise typer.BadParameter(f"{what} goes with Parquet: --output FILE.parquet")
    elif output is not None and "://" in output:
        raise typer.BadParameter("only Parquet can be written to an address")
