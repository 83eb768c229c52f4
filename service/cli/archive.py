"""`sdpose predict` into Parquet: whole archives, resumable, in this process or on Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.cli.console import Progress, stop_on_interrupt
from service.cli.options import need

if TYPE_CHECKING:
    from sdpose_core.commands.archive.output import ArchiveOutput, Part
    from sdpose_core.commands.archive.work import ArchiveOptions, PartResult
    from sdpose_core.io.sources import Source


@dataclass(frozen=True)
class ArchiveRequest:
    """What the command line asks for; see the options of `sdpose predict`."""

    output: str
    resume: bool
    retry_failed: bool
    part_size: int
    on_ray: bool
    ray_address: str | None
    workers: int | None


def predict_archive(
    request: ArchiveRequest,
    options: dict[str, Any],
    sources: Sequence[Source],
    report: Callable[[str], None],
) -> int:
    """Do what is asked; returns the exit status. `report` is told what the user should know.

    `options`: arguments of `ArchiveOptions`, to which the digests of the models here are added.

    Raises:
        ValueError: a package is missing, or the output cannot be used.
    """
    need("archive", "pyarrow", "fsspec")
    if request.on_ray:
        need("ray", "ray")

    from sdpose_core.commands.archive.output import ArchiveOutput
    from sdpose_core.commands.archive.schema import archive_schema
    from sdpose_core.commands.archive.work import ArchiveOptions, model_digests
    from sdpose_core.commands.predict import Interrupted

    how = ArchiveOptions(**options, digests=model_digests(options["pretrained"]))
    made_with = {
        "student": how.pretrained["student"],
        "detector": how.pretrained["detector"],
        **how.digests,
        **how.estimate,
        "track": how.track,
    }
    output = ArchiveOutput(request.output, archive_schema(made_with))
    try:
        with output.held():
            return _fill(request, output, how, sources, report)
    except Interrupted:
        report(f"interrupted; what is done is kept: go on with --resume --output {output.target}")
        return 130


def _fill(
    request: ArchiveRequest,
    output: ArchiveOutput,
    options: ArchiveOptions,
    sources: Sequence[Source],
    report: Callable[[str], None],
) -> int:
    from sdpose_core.commands.archive.work import parts_of

    run, done = output.begin(request.resume, request.retry_failed)
    wanted = output.wanted(sources, done)
    if len(wanted) < len(sources):
        report(f"{len(sources) - len(wanted)} of {len(sources)} are done already")
    parts = list(parts_of(wanted, run, request.part_size))
    if not parts:
        report(f"nothing to do; results in {output.target}")
        output.finish()
        return 0
    began = time.monotonic()
    # Here a video counts by its frames, once they are known; on Ray as one.
    counted = [source for source in wanted if request.on_ray or not source.named_video]
    progress = Progress(images=len(counted))
    with progress, stop_on_interrupt() as stopping:
        result = _run(request, parts, output, options, progress, report, stopping)
    output.finish()
    seconds = time.monotonic() - began
    rate = result.rows / max(seconds, 1e-9)
    failed = f", {len(result.failures)} failed" if result.failures else ""
    report(
        f"{result.rows} rows of {len(wanted)} files in {seconds:.1f} s ({rate:.1f} a second)"
        f"{failed}; results in {output.target}"
    )
    return int(bool(result.failures))


def _run(
    request: ArchiveRequest,
    parts: list[Part],
    output: ArchiveOutput,
    options: ArchiveOptions,
    progress: Progress,
    report: Callable[[str], None],
    stopping: Callable[[], bool],
) -> PartResult:
    from sdpose_core.commands.archive.run import run_here

    if not request.on_ray:
        return run_here(
            parts,
            output,
            options,
            options.build(),
            report=report,
            advance=progress.advance,
            expect=progress.expect,
            stopping=stopping,
        )
    from sdpose_core.commands.archive.ray_engine import run_on_ray
    from sdpose_core.hardware.ray_cluster import cluster

    with cluster(request.ray_address):
        return run_on_ray(
            parts,
            output,
            options,
            workers=request.workers,
            report=report,
            advance=progress.advance,
            stopping=stopping,
        )
