"""`python -m tools.bench batching`: the same load at several largest batches."""

from __future__ import annotations

from typing import Annotated

import typer

from service.bench.serve import ServeBench
from service.bench.tables import machine
from service.cli.bench_shared import Images, Rounds, Seconds, progress_line, read_images
from tools.bench.servers import several, side_by_side


def main(
    images: Images = None,
    clients: Annotated[int, typer.Option(min=1, help="Clients.")] = 16,
    sizes: Annotated[str, typer.Option(help="Batch sizes, the first is the measure.")] = "1,4,8,32",
    rounds: Rounds = 2,
    seconds: Seconds = 5.0,
) -> None:
    """Small images of one person each: the same load at several largest batches."""
    typer.echo(f"{machine()}\n")
    progress_line("cutting out the people")
    small = read_images(images, small=True)
    plan = ServeBench(small, (clients,), rounds, seconds)
    settings = {f"at most {size}": {"SDPOSE_MAX_BATCH": size} for size in sizes.split(",")}
    with several(settings) as servers:
        typer.echo(side_by_side(servers, plan, progress_line))
