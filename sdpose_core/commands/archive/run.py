"""An archive in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sdpose_core.commands.archive.output import ArchiveOutput, Part
from sdpose_core.commands.archive.work import ArchiveOptions, PartResult, work_on
from sdpose_core.commands.predict import Estimate


def run_here(
    parts: Iterable[Part],
    output: ArchiveOutput,
    options: ArchiveOptions,
    estimate: Estimate,
    *,
    report: Callable[[str], None],
    advance: Callable[[int], None],
    expect: Callable[[int], None],
    stopping: Callable[[], bool],
) -> PartResult:
    """Work on one part after the other; arguments and errors as of ``work_on``."""
    rows, failures = 0, list[str]()
    for part in parts:
        result = work_on(
            part,
            output,
            estimate,
            options,
            report=report,
            advance=advance,
            expect=expect,
            stopping=stopping,
        )
        rows += result.rows
        failures += result.failures
    return PartResult(rows, tuple(failures))
