"""`sdpose bench`: measurements that print Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.bench_peers import peers
from service.cli.bench_ray import ray
from service.cli.bench_shared import (
    Images,
    Rounds,
    Seconds,
    Small,
    bare_estimator,
    progress_line,
    read_images,
)

if TYPE_CHECKING:
    from service.bench.server import Server

bench = typer.Typer(
    no_args_is_help=True, help="Measure the networks alone, or the service under load."
)

bench.command("peers")(peers)
bench.command("ray")(ray)


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
    Where the rest of a request goes, `sdpose bench people` shows.
    """
    from service.bench.core import CoreBench, run_core
    from service.bench.tables import machine

    typer.echo(f"{machine()}\n")
    typer.echo(
        run_core(
            CoreBench(
                _listed(variants),
                _listed(backends),
                [int(batch) for batch in _listed(batches)],
                device,
                rounds,
                seconds,
                _listed(precisions),
                _listed(detectors),
                floor=device == "cpu",
            ),
            progress_line,
        )
    )


@bench.command("people")
def people(
    images: Images = None,
    counts: Annotated[str, typer.Option(help="Numbers of people.")] = "1,2,5,10,20",
    rounds: Rounds = 3,
    seconds: Seconds = 1.0,
) -> None:
    """A picture's cost by its people, beside the networks alone, and where the rest goes."""
    from service.bench import people as measure
    from service.bench.tables import machine

    typer.echo(f"{machine()}\n")
    estimator = bare_estimator()
    person = measure.cut_person(estimator, read_images(images)[0])
    numbers = [int(number) for number in _listed(counts)]
    plan = (estimator, person)
    typer.echo(measure.by_people(*plan, numbers, rounds, seconds, progress_line))
    typer.echo("")
    ends = [numbers[0], numbers[-1]] if len(numbers) > 1 else numbers
    typer.echo(measure.parts(*plan, ends, rounds, seconds, progress_line))


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


@bench.command("batching")
def batching(
    images: Images = None,
    clients: Annotated[int, typer.Option(min=1, help="Clients.")] = 16,
    sizes: Annotated[str, typer.Option(help="Batch sizes, the first is the measure.")] = "1,4,8,32",
    rounds: Rounds = 2,
    seconds: Seconds = 5.0,
) -> None:
    """Small images of one person each: the same load at several largest batches."""
    from service.bench import serve as measure
    from service.bench.tables import machine

    typer.echo(f"{machine()}\n")
    progress_line("cutting out the people")
    small = read_images(images, small=True)
    plan = measure.ServeBench(small, (clients,), rounds, seconds)
    wanted = {
        f"at most {size}": {"SDPOSE_MAX_BATCH": size, "SDPOSE_MAX_DETECT_BATCH": size}
        for size in sizes.split(",")
    }
    with _several(wanted) as servers:
        typer.echo(measure.side_by_side(servers, plan, progress_line))


@bench.command("cycles")
def cycles(
    images: Images = None,
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,8",
    rounds: Rounds = 2,
    seconds: Seconds = 5.0,
) -> None:
    """What the second transformer cycle costs (`SDPOSE_CYCLES`).

    SDPOSE_STUDENT must name a checkpoint of two cycles, which the embedded student has not.
    """
    from service.bench import serve as measure
    from service.bench.tables import machine

    _need_cycles(2)
    typer.echo(f"{machine()}\n")
    numbers = [int(number) for number in clients.split(",")]
    plan = measure.ServeBench(read_images(images), numbers, rounds, seconds)
    wanted = {f"cycles={value}": {"SDPOSE_CYCLES": value} for value in ("1", "2")}
    with _several(wanted) as servers:
        typer.echo(measure.side_by_side(servers, plan, progress_line))


@bench.command("soak")
def soak(
    images: Images = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the run.")] = 20.0,
    clients: Annotated[int, typer.Option(min=1, help="Clients of each front end.")] = 2,
    cameras: Annotated[int, typer.Option(min=0, help="Cameras of 5 frames a second.")] = 2,
    large: Annotated[bool, typer.Option(help="The images as they are, not their people.")] = False,
) -> None:
    """A long run: images over both front ends, cameras, and callers that misbehave.

    Memory, files, threads and tasks of the service, its latency, and every answer that was lost
    (status 1 then).
    """
    from service.bench.server import started
    from service.bench.soak import run_soak
    from service.bench.streams import panned
    from service.bench.tables import machine

    typer.echo(f"{machine()}\n")
    files = read_images(images, small=not large)
    with started({}) as server:
        seen = run_soak(
            server,
            files,
            panned(files[0]),
            minutes * 60,
            progress_line,
            clients=clients,
            cameras=cameras,
            every_s=min(10.0, minutes * 6),
        )
    typer.echo(seen.report())
    raise typer.Exit(1 if seen.lost else 0)


@bench.command("overload")
def overload(
    images: Images = None,
    times: Annotated[float, typer.Option(min=1, help="Of the peak rate.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=3, help="Length of the overload.")] = 15.0,
    plot: Annotated[Path | None, typer.Option(help="PNG file to draw; needs matplotlib.")] = None,
    large: Annotated[bool, typer.Option(help="The images as they are, not their people.")] = False,
) -> None:
    """Several times more requests than the service can answer, and the time after."""
    from service.bench.overload import run_overload
    from service.bench.overload_plot import draw
    from service.bench.server import started
    from service.bench.tables import machine

    typer.echo(f"{machine()}\n")
    files = read_images(images, small=not large)
    with started({}) as server:
        run = run_overload(server, files, times, seconds, progress_line)
    typer.echo(run.table())
    if plot is not None:
        draw(run, plot)


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
        counts = [int(count) for count in _listed(cameras)]
        rates = [float(rate) for rate in _listed(fps)]
        typer.echo(run_streams(server, named, counts, rates, seconds, progress_line))


def _listed(text: str) -> list[str]:
    """What stands between the commas; of an empty text nothing."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _need_cycles(count: int) -> None:
    """Refuse a student that cannot run so often now, instead of when its service ends at once."""
    from sdpose_core.checkpoints import find_checkpoint
    from service.settings import load_settings

    student = load_settings().student
    able = find_checkpoint(student).config.cycles
    if able.highest < count:
        raise ValueError(
            f"SDPOSE_STUDENT: {student} runs {able.described} cycles and this measures 1 to "
            f"{count}: name a checkpoint that has them"
        )


@contextmanager
def _several(wanted: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Server]]:
    """A service for each name, with these settings."""
    from service.bench.server import started

    with ExitStack() as stack:
        servers = {}
        for name, settings in wanted.items():
            progress_line(f"starting the service: {name}")
            servers[name] = stack.enter_context(started(settings))
        yield servers


@bench.command("tracking")
def tracking(
    scenes: Annotated[int, typer.Option(min=1, help="Scenes of three people who cross.")] = 60,
) -> None:
    """Identities and smoothing, on people made by arithmetic; no model and no clock."""
    from service.bench.tracking import run_tracking

    typer.echo(run_tracking(scenes))
