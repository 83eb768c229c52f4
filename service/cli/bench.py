"""`sdpose bench`: measurements that print Markdown tables."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.bench_shared import (
    Images,
    Rounds,
    Seconds,
    Small,
    bare_estimator,
    listed,
    progress_line,
    read_images,
)

bench = typer.Typer(
    no_args_is_help=True, help="Measure the networks alone, or the service under load."
)


@bench.command("core")
def core(
    variants: Annotated[
        str,
        typer.Option(
            help="Students, separated by commas: presets (random weights) or files; a number of "
            "cycles may follow a colon."
        ),
    ] = "sdpose-lite:0,sdpose-lite:1,sdpose-t",
    backends: Annotated[str, typer.Option(help="Backends, separated by commas.")] = (
        "torch,openvino"
    ),
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    rounds: Rounds = 3,
    seconds: Seconds = 1.0,
    precisions: Annotated[
        str, typer.Option(help="Precisions, separated by commas; of those that a backend has.")
    ] = "fp32,auto",
    detectors: Annotated[
        str, typer.Option(help="Detectors, separated by commas; empty: none.")
    ] = "embedded",
) -> None:
    """Students and detectors on every backend, side by side, without the service.

    On a CPU beside their floor: the network alone in its fastest precision and thread setting.
    """
    from service.bench.core import CoreBench, run_core
    from service.bench.tables import machine

    typer.echo(f"{machine()}\n")
    typer.echo(
        run_core(
            CoreBench(
                listed(variants),
                listed(backends),
                [int(batch) for batch in listed(batches)],
                device,
                rounds,
                seconds,
                listed(precisions),
                listed(detectors),
                floor=device == "cpu",
            ),
            progress_line,
        )
    )


@bench.command("serve")
def serve(
    images: Images = None,
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,8",
    rounds: Rounds = 2,
    seconds: Seconds = 5.0,
) -> None:
    """REST and gRPC under a closed-loop load, against the bare estimator in one run."""
    from service.bench.serve import ServeBench, against_bare
    from service.bench.server import started
    from service.bench.tables import machine

    typer.echo(f"{machine()}\n")
    numbers = [int(number) for number in clients.split(",")]
    plan = ServeBench(read_images(images), numbers, rounds, seconds)
    progress_line("starting the service and the bare estimator")
    with started({}) as server:
        typer.echo(against_bare(bare_estimator(), server, plan, progress_line))


@bench.command("stream")
def streams(
    images: Images = None,
    cameras: Annotated[str, typer.Option(help="Numbers of cameras.")] = "1",
    fps: Annotated[str, typer.Option(help="Frames per second of each camera.")] = "5,30",
    seconds: Annotated[float, typer.Option(min=1, help="Length of one measurement.")] = 10.0,
    small: Small = False,
) -> None:
    """Cameras of 640x480 pixels over gRPC against a service that is started for it."""
    from service.bench.server import started
    from service.bench.streams import run_streams
    from service.bench.tables import machine

    typer.echo(f"{machine()}\n")
    named = [(f"image {number}", file) for number, file in enumerate(read_images(images, small), 1)]
    with started({}) as server:
        counts = [int(count) for count in listed(cameras)]
        rates = [float(rate) for rate in listed(fps)]
        typer.echo(run_streams(server, named, counts, rates, seconds, progress_line))
