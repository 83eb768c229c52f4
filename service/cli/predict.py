"""`sdpose predict`: poses of images and videos on disk."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.options import (
    Backend,
    Detector,
    DetectorClasses,
    Device,
    MinKeypointScore,
    MinScore,
    Models,
    Student,
    Suppress,
    need,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File for the results, not the screen; may be repeated. The suffix decides: "
            ".jsonl (JSON lines), .json (one COCO file), .csv (a row per person), .parquet (a row "
            "per image; alone also a folder, which ends in /, or an address).",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace results and drawings that are there.")
    ] = False,
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
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Drawings: also the boxes of the people.")
    ] = False,
    thickness: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Drawings: pixels of a line; fitted if not given."),
    ] = None,
    min_keypoint_score: MinKeypointScore = 0.3,
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
    from sdpose_core.commands.options import RunOptions
    from sdpose_core.commands.predict import check_drawings, drawings_in
    from sdpose_core.files.outputs import OutputError, check_free, check_outputs
    from sdpose_core.io.sources import find_sources, paths_of, read_list
    from service.cli.console import Progress, draft_of

    progress = Progress(command="sdpose predict")
    report = progress.report
    given = [*(inputs or ()), *(read_list(listed) if listed else ())]
    if not given:
        raise typer.BadParameter("nothing to work on: give an INPUT or --list")
    targets = output or []
    archive = overlay is None and len(targets) == 1 and _holds_parts(targets[0])
    if retry_failed and not resume:
        raise typer.BadParameter("--retry-failed goes with --resume")
    if resume and force:
        raise typer.BadParameter("--resume keeps what is there and --force replaces it: give one")
    if overlay is None and (boxes or thickness):
        raise typer.BadParameter("--boxes and --thickness go with --overlay")
    if not archive:
        _check_files(targets, resume, engine)
    sources, problems = find_sources(given, report)
    for problem in problems:
        report(problem)
    if not sources:
        raise typer.Exit(1)
    models = Models(student, detector, device, backend, detector_classes=detector_classes)
    drawings = None if overlay is None else drawings_in(overlay, sources)
    files = [Path(target) for target in targets]
    drafts = [] if archive else [draft_of(file) for file in files]
    try:
        check_drawings(drawings or (), sources)
        listing = [Path(listed)] if listed else []
        outputs = [*(drawings or ()), *files, *drafts]
        check_outputs(outputs, [*paths_of(sources), *listing, *models.files])
        if not archive:  # whose parts may go on
            check_free([*files, *(drawings or ())], force)
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
    options = RunOptions(asdict(models), people, track, batch_size, readers)
    try:
        if archive:
            from service.cli.archive import predict_archive

            need("archive", "pyarrow", "fsspec")
            status = predict_archive(
                sources,
                targets[0],
                options,
                progress,
                problems,
                resume=resume,
                retry_failed=retry_failed,
                force=force,
                part_size=part_size,
                on_ray=engine is Engine.ray,
                ray_address=ray_address,
                workers=workers,
            )
        else:
            from service.cli.result_files import Drawn, predict_files

            drawn = Drawn(overlay, drawings, boxes, thickness)
            status = predict_files(
                sources, files, options, progress, problems, drawn, min_keypoint_score
            )
    except (ValueError, RuntimeError) as error:
        if not (archive or isinstance(error, ValueError)):
            raise
        report(str(error))
        raise typer.Exit(2) from None
    raise typer.Exit(status)


def _holds_parts(target: str) -> bool:
    """Whether results alone into it are Parquet parts, which may go on."""
    return target.lower().endswith((".parquet", "/"))


def _check_files(targets: Sequence[str], resume: bool, engine: Engine) -> None:
    """Raises ``ValueError`` for files and options that results in one run cannot have."""
    from sdpose_core.io.results.formats import PARQUET, format_of

    for target in targets:
        if target.endswith("/") or "://" in target or Path(target).is_dir():
            raise ValueError(
                f"{target}: is a folder or an address; such (a folder ends in /) takes Parquet as "
                "the only --output, without --overlay"
            )
        if format_of(Path(target)) == PARQUET:
            need("archive", "pyarrow")
    if resume or engine is Engine.ray:
        what = "--resume" if resume else "--engine ray"
        raise ValueError(f"{what} goes with Parquet as the only --output, without --overlay")
