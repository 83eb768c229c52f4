"""`sdpose predict` into Parquet: whole archives, resumable, in this process or on Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from service.cli.console import Progress, stop_on_interrupt
from service.cli.options import need

if TYPE_CHECKING:
    from sdpose_core.commands.archive.output import ArchiveOutput, Part
    from sdpose_core.commands.options import RunOptions
    from sdpose_core.commands.tally import Tally
    from sdpose_core.io.sources import Source


def predict_archive(
    sources: Sequence[Source],
    target: str,
    options: RunOptions,
    progress: Progress,
    problems: Sequence[str],
    *,
    resume: bool,
    retry_failed: bool,
    force: bool,
    part_size: int,
    on_ray: bool,
    ray_address: str | None,
    workers: int | None,
) -> int:
    """Write the poses of ``sources`` to ``target``; arguments as the options of `sdpose predict`.

    `problems`: inputs that stand for nothing, already reported; they count as failed.

    Returns:
        The exit status.

    Raises:
        ValueError: a package is missing, or the output cannot be used.
    """
    if on_ray:
        need("ray", "ray")

    from sdpose_core.checkpoints import find_checkpoint
    from sdpose_core.commands.archive.output import ArchiveOutput
    from sdpose_core.commands.archive.work import parts_of
    from sdpose_core.commands.options import made_with, model_digests
    from sdpose_core.commands.predict import Interrupted
    from sdpose_core.io.results.parquet import results_schema

    options = replace(options, digests=model_digests(options.pretrained))
    student = find_checkpoint(options.pretrained["student"])
    output = ArchiveOutput(target, results_schema(made_with(options), student.config.skeleton))
    work = partial(_work_on_ray, ray_address, workers) if on_ray else _work_here
    try:
        with output.held():
            run, done = output.begin(resume, retry_failed, force=force)
            remaining = output.remaining(sources, done)
            if len(remaining) < len(sources):
                progress.report(f"{len(sources) - len(remaining)} of {len(sources)} are done")
            parts = list(parts_of(remaining, run, part_size))
            # Here a video counts by its frames, once they are known; on Ray as one.
            progress.expect(sum(on_ray or not source.named_video for source in remaining))
            return _fill(parts, output, options, progress, problems, work)
    except Interrupted:
        progress.report(
            f"interrupted; what is done is kept: go on with --resume --output {output.target}"
        )
        return 130


Work = Callable[["list[Part]", "ArchiveOutput", "RunOptions", Progress], "Tally"]


def _fill(
    parts: list[Part],
    output: ArchiveOutput,
    options: RunOptions,
    progress: Progress,
    problems: Sequence[str],
    work: Work,
) -> int:
    if not parts:
        progress.report(f"nothing to do; results in {output.target}")
        output.finish()
        return int(bool(problems))
    from sdpose_core.commands.tally import Tally

    began = time.monotonic()
    with progress, stop_on_interrupt(progress.stop):
        result = Tally(failures=list(problems)) + work(parts, output, options, progress)
    output.finish()
    progress.report(result.sentence(time.monotonic() - began, [output.target]))
    return int(bool(result.failures))


def _work_here(
    parts: list[Part], output: ArchiveOutput, options: RunOptions, progress: Progress
) -> Tally:
    from sdpose_core.commands.archive.work import work_on
    from sdpose_core.commands.tally import Tally

    estimate = options.build()
    done = (work_on(part, output, estimate, options, progress) for part in parts)
    return sum(done, Tally())


def _work_on_ray(
    address: str | None,
    workers: int | None,
    parts: list[Part],
    output: ArchiveOutput,
    options: RunOptions,
    progress: Progress,
) -> Tally:
    from sdpose_core.commands.archive.ray_engine import run_on_ray
    from sdpose_core.hardware.ray_cluster import cluster

    with cluster(address):
        return run_on_ray(parts, output, options, progress, workers=workers)
