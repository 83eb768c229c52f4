"""The service against the bare estimator, with and without batching."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from sdpose_core.estimator import PoseEstimator
from sdpose_core.vision.image_files import ImageLimits, decode_image, encode_jpeg
from service.bench.alternate import in_turns
from service.bench.load import Load, RestConnection, RpcConnection, closed_loop
from service.bench.server import Server
from service.bench.tables import markdown, spread

Progress = Callable[[str], None]
_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True)
class ServeBench:
    """Settings of the measurement; every cell runs `2 * rounds` times for `seconds` each."""

    images: Sequence[bytes]
    clients: Sequence[int] = (1, 8)
    rounds: int = 2
    seconds: float = 5.0
    fronts: Sequence[str] = field(default=("rest", "grpc"))


def bare_load(estimator: PoseEstimator, images: Sequence[bytes], seconds: float, many: int) -> Load:
    """Decode and estimate in one thread, `many` images per call; latency is that of a call."""
    load = Load()
    feed = itertools.cycle(images)
    started = time.perf_counter()
    while load.seconds < seconds:
        began = time.perf_counter()
        estimator.estimate([decode_image(next(feed), _LIMITS) for _ in range(many)])
        now = time.perf_counter()
        load.latencies.extend([now - began] * many)
        load.seconds = now - started
    return load


def server_load(
    server: Server, front: str, clients: int, bench: ServeBench, progress: Progress
) -> Load:
    """The load of so many clients of one front end; reports their errors."""
    load = asyncio.run(
        closed_loop(_connections(server, front, clients), bench.images, seconds=bench.seconds)
    )
    if load.errors:
        progress(f"{load.errors} errors, the first: {load.first_error}")
    return load


def against_bare(
    estimator: PoseEstimator, server: Server, bench: ServeBench, progress: Progress
) -> str:
    """Bare estimator and server in the order A B B A; a Markdown table."""
    bare = {
        f"bare, decode and {_several('image', many)} a call": partial(
            bare_load, estimator, bench.images, bench.seconds, many
        )
        for many in (1, 8)
    }
    served = {
        f"{front}, {_several('client', clients)}": partial(
            server_load, server, front, clients, bench, progress
        )
        for clients, front in itertools.product(bench.clients, bench.fronts)
    }
    loads = in_turns({**bare, **served}, bench.rounds, progress)
    one = next(iter(bare))
    best = max(bare, key=lambda name: _rate(loads[name]))
    rows = [
        [
            name,
            spread([load.rate for load in measured]),
            f"{paired(measured, loads[best], rate_of):.2f}",
            f"{median(load.ms(0.5) for load in measured):.1f}",
            f"{paired(measured, loads[one], _p50_of):.2f}",
            f"{median(load.ms(0.99) for load in measured):.1f}",
            str(sum(load.errors for load in measured)),
        ]
        for name, measured in loads.items()
    ]
    head = ["what", "images/s", "of bare", "p50 ms", "of bare p50", "p99 ms", "errors"]
    return markdown(head, rows)


def _several(what: str, many: int) -> str:
    return f"{many} {what}{'s' * (many > 1)}"


def one_person_images(estimator: PoseEstimator, images: Sequence[bytes]) -> list[bytes]:
    """The people of the images cut out with some room, as small files of one person each."""
    cut: list[bytes] = []
    for data in images:
        image = decode_image(data, _LIMITS)
        (poses,) = estimator.estimate([image], min_score=0.5)
        for x1, y1, x2, y2 in poses.boxes.tolist():
            room = 0.1 * max(x2 - x1, y2 - y1)
            part = image[
                max(0, int(y1 - room)) : int(y2 + room), max(0, int(x1 - room)) : int(x2 + room)
            ]
            cut.append(encode_jpeg(part.copy()))
    return cut


def rate_of(load: Load) -> float:
    """Answers a second, for `paired`."""
    return load.rate


def _p50_of(load: Load) -> float:
    return load.ms(0.5)


def _rate(loads: Sequence[Load]) -> float:
    return median(load.rate for load in loads)


def paired(loads: Sequence[Load], measure: Sequence[Load], what: Callable[[Load], float]) -> float:
    """The median ratio to what was measured in the same turn, when the machine was as fast."""
    return median(what(load) / what(other) for load, other in zip(loads, measure, strict=True))


def _connections(server: Server, front: str, clients: int) -> list[RestConnection | RpcConnection]:
    if front == "rest":
        return [RestConnection(server.host, server.http_port) for _ in range(clients)]
    return [RpcConnection(server.host, server.grpc_port) for _ in range(clients)]
