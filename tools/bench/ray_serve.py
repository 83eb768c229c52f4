"""`python -m tools.bench ray-serve`: what Ray Serve adds."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from service.bench.serve import ServeBench
from service.bench.server import KEYS, free_port, started
from service.bench.tables import machine
from service.cli.bench_shared import Images, Rounds, Seconds, progress_line, read_images
from service.cli.options import need
from tools.bench.servers import side_by_side


class Proxy(StrEnum):
    """The proxy before the replica."""

    haproxy = "haproxy"
    python = "python"


def main(
    images: Images = None,
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,8",
    rounds: Rounds = 2,
    seconds: Seconds = 5.0,
    fronts: Annotated[str, typer.Option(help="Front ends, separated by commas.")] = "rest,grpc",
    proxy: Annotated[
        Proxy, typer.Option(help="Before the replica: HAProxy as advised, or Ray's own.")
    ] = Proxy.haproxy,
) -> None:
    """The same load on `sdpose serve` and on one replica behind Ray Serve's proxies."""
    need("ray", "ray")
    chosen = fronts.split(",")
    if not set(chosen) <= {"rest", "grpc"}:
        raise ValueError(f"--fronts {fronts}: rest, grpc or both")

    for name in KEYS:
        os.environ.pop(name, None)
    # Ray reads these when it is imported.
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = str(int(proxy is Proxy.haproxy))
    os.environ["RAY_SERVE_HAPROXY_METRICS_PORT"] = str(free_port())
    os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] = str(free_port())
    from tools.bench.ray_server import started_on_ray

    typer.echo(f"{machine()}\n")
    numbers = [int(number) for number in clients.split(",")]
    plan = ServeBench(read_images(images), numbers, rounds, seconds)
    progress_line("starting the service and Ray Serve")
    with started({}) as plain, started_on_ray() as on_ray:
        servers = {"sdpose serve": plain, "Ray Serve": on_ray}
        for front in chosen:
            table = side_by_side(servers, plan, progress_line, front)
            typer.echo(f"{front}:\n\n{table}\n")
