"""Crops per second of the student: variants x backends x batch sizes, side by side."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from sdpose_core.backends import PoseBackend, make_backend
from sdpose_core.checkpoints import load_student
from service.bench.tables import markdown, spread


@dataclass(frozen=True, slots=True)
class CoreBench:
    """What to measure. Every cell runs `2 * rounds` times for `seconds` each."""

    variants: Sequence[str]
    backends: Sequence[str]
    batches: Sequence[int]
    device: str = "cpu"
    rounds: int = 3
    seconds: float = 1.0


def run_core(bench: CoreBench, progress: Callable[[str], None]) -> str:
    """Measures and gives a Markdown table.

    Backends are visited in the order A B B A, so that a drift of the machine meets both alike.
    """
    rows: list[list[str]] = []
    for variant in bench.variants:
        loaded: dict[str, PoseBackend] = {}
        for name in bench.backends:
            progress(f"{variant}: preparing {name}")
            student = load_student(variant, allow_untrained=True)
            loaded[name] = make_backend(student, name, bench.device)
        for batch in bench.batches:
            speeds = _side_by_side(loaded, batch, bench, progress, variant)
            best = max(median(values) for values in speeds.values())
            rows.extend(
                [
                    variant,
                    f"{name} {loaded[name].precision}",
                    str(batch),
                    spread(values),
                    f"{median(values) / best:.2f}",
                ]
                for name, values in speeds.items()
            )
    return markdown(["student", "backend", "batch", "crops/s", "of the best"], rows)


def _side_by_side(
    loaded: dict[str, PoseBackend],
    batch: int,
    bench: CoreBench,
    progress: Callable[[str], None],
    variant: str,
) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = defaultdict(list)
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (batch, 3, 256, 192), generator=generator, dtype=torch.uint8)
    for backend in loaded.values():
        backend.run(crops.to(backend.device))
    for number in range(bench.rounds):
        progress(f"{variant}: batch {batch}, round {number + 1} of {bench.rounds}")
        there = list(loaded.items())
        for name, backend in [*there, *reversed(there)]:
            speeds[name].append(_crops_per_second(backend, crops.to(backend.device), bench.seconds))
    return speeds


def _crops_per_second(backend: PoseBackend, crops: torch.Tensor, seconds: float) -> float:
    runs, started = 0, time.perf_counter()
    while True:
        backend.run(crops)
        if backend.device.type == "cuda":
            torch.cuda.synchronize(backend.device)
        runs += 1
        spent = time.perf_counter() - started
        if spent >= seconds:
            return runs * len(crops) / spent
