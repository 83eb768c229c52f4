"""Services that differ in a setting, side by side under the same loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median

from service.bench.load import Load
from service.bench.serve import Progress, ServeBench, in_rounds, paired, rate_of, server_load
from service.bench.server import Server, started
from service.bench.tables import markdown, spread
from service.cli.bench_shared import progress_line


@contextmanager
def several(wanted: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Server]]:
    """A service for each name, with these settings."""
    with ExitStack() as stack:
        servers = {}
        for name, settings in wanted.items():
            progress_line(f"starting the service: {name}")
            servers[name] = stack.enter_context(started(settings))
        yield servers


def side_by_side(
    servers: dict[str, Server], bench: ServeBench, progress: Progress, front: str = "rest"
) -> str:
    """The same loads on servers that differ in a setting; the first of them is the measure."""
    cells: dict[tuple[str, int], Callable[[], Load]] = {
        (name, clients): lambda server=server, clients=clients: server_load(  # type: ignore[misc]
            server, front, clients, bench
        )
        for clients in bench.clients
        for name, server in servers.items()
    }
    loads = in_rounds(cells, bench.rounds, progress)
    first = next(iter(servers))
    rows = [
        [
            name,
            str(clients),
            spread([load.rate for load in measured]),
            f"{paired(measured, loads[first, clients], rate_of):.2f}",
            f"{median(load.ms(0.5) for load in measured):.1f}",
            f"{median(load.ms(0.99) for load in measured):.1f}",
            str(sum(load.errors for load in measured)),
        ]
        for (name, clients), measured in loads.items()
    ]
    head = ["server", "clients", "images/s", "of the first", "p50 ms", "p99 ms", "errors"]
    return markdown(head, rows)
