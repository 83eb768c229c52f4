"""Cameras against a running service: answers a second, latency, and what is around the models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from sdpose_client import Ask, AsyncGrpcPoseClient, PoseAnswer, StreamAsk, StreamFrame
from sdpose_core.types import Image
from sdpose_core.vision.image_files import ImageLimits, decode_image, encode_jpeg
from service.bench.server import Server
from service.bench.tables import markdown, percentile

SIZE = (640, 480)
_STEPS = 15
_WARM_S = 2.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: so many cameras with so many frames per second."""

    files: Sequence[bytes]
    cameras: int
    fps: float
    stream: StreamAsk


@dataclass(slots=True)
class Seen:
    """Answers of one camera after the warm-up."""

    latencies_ms: list[float] = field(default_factory=list)
    around_ms: list[float] = field(default_factory=list)
    people: list[int] = field(default_factory=list)


def panned(file: bytes) -> list[bytes]:
    """JPEG files of 640x480 pixels over which a camera looks to and fro."""
    image = decode_image(file, ImageLimits())
    height, width = image.shape[:2]
    scale = min(SIZE[0] / width, SIZE[1] / height)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frames = []
    for step in (*range(_STEPS), *range(_STEPS - 2, 0, -1)):
        canvas: Image = np.full((SIZE[1], SIZE[0], 3), 114, np.uint8)
        left = (SIZE[0] - small.shape[1]) // 2 + 2 * (step - _STEPS // 2)
        start = max(0, left)
        part = small[:, start - left : start - left + SIZE[0] - start]
        canvas[: small.shape[0], start : start + part.shape[1]] = part
        frames.append(encode_jpeg(canvas))
    return frames


async def _camera(server: Server, cell: Cell, seconds: float, seen: Seen) -> None:
    end = time.monotonic() + _WARM_S + seconds
    warm = end - seconds

    async def frames() -> AsyncIterator[StreamFrame]:
        number, due = 0, time.monotonic()
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            yield StreamFrame(cell.files[number % len(cell.files)], number, now)
            number, due = number + 1, due + 1 / cell.fps

    async with AsyncGrpcPoseClient(f"{server.host}:{server.grpc_port}") as client:
        async for answer in client.stream(frames(), Ask(), cell.stream):
            now = time.monotonic()
            if now < warm or answer.timestamp is None:
                continue
            if not isinstance(answer.outcome, PoseAnswer):
                raise answer.outcome
            latency = (now - answer.timestamp) * 1e3
            timings = answer.outcome.timings_ms
            seen.latencies_ms.append(latency)
            seen.around_ms.append(latency - timings["total"] + timings.get("track", 0.0))
            seen.people.append(len(answer.outcome.people))


async def _run(server: Server, cell: Cell, seconds: float) -> list[Seen]:
    seen = [Seen() for _ in range(cell.cameras)]
    await asyncio.gather(*(_camera(server, cell, seconds, one) for one in seen))
    return seen


def run_streams(
    server: Server,
    files: Sequence[tuple[str, bytes]],
    cameras: Sequence[int],
    fps: Sequence[float],
    seconds: float,
    progress: Callable[[str], None],
) -> str:
    """A table: each image as a camera looks at it, for each number of cameras and each rate."""
    rows = []
    for name, file in files:
        pictures = panned(file)
        for count in cameras:
            for rate in fps:
                for how, stream in (
                    ("as served", StreamAsk()),
                    ("every frame detected, no tracking", StreamAsk(tracking=False)),
                ):
                    progress(f"{name}, {count} at {rate:g}, {how}")
                    cell, before = Cell(pictures, count, rate, stream), server.memory_mib()
                    seen = asyncio.run(_run(server, cell, seconds))
                    memory = f"{before:.0f}, {server.memory_mib():.0f}"
                    row = [*_row(seen, seconds), memory]
                    rows.append([f"{name}, {count} x {rate:g} fps, {how}", *row])
    head = [
        *("cameras", "answers/s", "slowest of mean", "p50 ms", "p95 ms"),
        *("around the models ms", "people", "p95 ms of first and last fifth"),
        "memory MiB before and after",
    ]
    return markdown(head, rows)


def _row(seen: Sequence[Seen], seconds: float) -> list[str]:
    counts = [len(one.latencies_ms) for one in seen]
    latencies = [value for one in seen for value in one.latencies_ms]
    around = [value for one in seen for value in one.around_ms]
    people = [value for one in seen for value in one.people]
    if not latencies:
        return ["0", *[""] * 6]
    return [
        f"{sum(counts) / seconds:.1f}",
        f"{min(counts) * len(counts) / sum(counts):.2f}",
        f"{percentile(latencies, 0.5):.0f}",
        f"{percentile(latencies, 0.95):.0f}",
        f"{percentile(around, 0.5):.1f}",
        f"{sum(people) / len(people):.1f}",
        f"{_p95_of_fifth(seen, 0):.0f}, {_p95_of_fifth(seen, 4):.0f}",
    ]


def _p95_of_fifth(seen: Sequence[Seen], which: int) -> float:
    parts = [np.array_split(one.latencies_ms, 5)[which] for one in seen]
    return percentile(np.concatenate(parts).tolist(), 0.95)
