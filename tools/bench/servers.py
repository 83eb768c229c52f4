"""Services that differ in a setting, side by side under the same loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import NamedTuple

from service.bench.alternate import in_turns
from service.bench.serve import Progress, ServeBench, paired, rate_of, server_load
from service.bench.server import Server, started
from service.bench.tables import markdown, spread
from service.cli.bench_shared import progress_line


@contextmanager
def several(services: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Server]]:
    """A service for each name, with these settings."""
    with ExitStack() as stack:
        servers = {}
        for name, settings in services.items():
            progress_line(f"starting the service: {name}")
            servers[name] = stack.enter_context(started(settings))
        yield servers


class _Cell(NamedTuple):
    name: str
    clients: int

    def __str__(self) -> str:
        return f"{self.name}, {self.clients}"


def side_by_side(
    servers: dict[str, Server], bench: ServeBench, progress: Progress, front: str = "rest"
) -> str:
    """The same loads on servers that differ in a setting; the first of them is the measure."""
    cells = {
        _Cell(name, clients): partial(server_load, server, front, clients, bench, progress)
        for clients in bench.clients
        for name, server in servers.items()
    }
    loads = in_turns(cells, bench.rounds, progress)
    first = next(iter(servers))
    rows = [
        [
            name,
            str(clients),
            spread([load.rate for load in measured]),
            f"{paired(measured, loads[_Cell(first, clients)], rate_of):.2f}",
            f"{median(load.ms(0.5) for load in measured):.1f}",
            f"{median(load.ms(0.99) for load in measured):.1f}",
            str(sum(load.errors for load in measured)),
        ]
        for (name, clients), measured in loads.items()
    ]
    head = ["server", "clients", "images/s", "of the first", "p50 ms", "p99 ms", "errors"]
    return markdown(head, rows)
