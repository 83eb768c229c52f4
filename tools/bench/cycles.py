"""`python -m tools.bench cycles`: the second transformer cycle under load."""

from __future__ import annotations

from typing import Annotated

import typer

from sdpose_core.checkpoints import find_checkpoint
from service.bench.serve import ServeBench
from service.bench.tables import machine
from service.cli.bench_shared import Images, Rounds, Seconds, progress_line, read_images
from service.settings import load_settings
from tools.bench.servers import several, side_by_side


def main(
    images: Images = None,
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,8",
    rounds: Rounds = 2,
    seconds: Seconds = 5.0,
) -> None:
    """The cost of the second transformer cycle (`SDPOSE_CYCLES`).

    SDPOSE_STUDENT must name a checkpoint of two cycles, which the embedded student has not.
    """
    _need_cycles(2)
    typer.echo(f"{machine()}\n")
    numbers = [int(number) for number in clients.split(",")]
    plan = ServeBench(read_images(images), numbers, rounds, seconds)
    settings = {f"cycles={value}": {"SDPOSE_CYCLES": value} for value in ("1", "2")}
    with several(settings) as servers:
        typer.echo(side_by_side(servers, plan, progress_line))


def _need_cycles(count: int) -> None:
    """Reject a student that cannot run so often now, instead of when its service ends at once."""
    student = load_settings().student
    able = find_checkpoint(student).config.cycles
    if able.highest < count:
        raise ValueError(
            f"SDPOSE_STUDENT: {student} runs {able.described} cycles and this measures 1 to "
            f"{count}: name a checkpoint that has them"
        )
