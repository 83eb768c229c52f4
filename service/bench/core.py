"""Speed of the networks alone, student and detector in one table: models x backends x batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

import numpy as np
import torch

from sdpose_core.checkpoints import load_student
from sdpose_core.detector import load_detector
from sdpose_core.hardware.backends import make_backend
from sdpose_core.model import PRESETS, Student
from sdpose_core.types import Image
from service.bench.alternate import Call, alternate
from service.bench.floor import detector_floor, student_floor
from service.bench.tables import markdown, spread

HEAD = ("model", "backend", "batch", "crops or images/s", "ms per batch", "of the floor")
PICTURE = (480, 640)
"""Height and width of the images that the detector gets."""

FLOOR = "floor"

Work: TypeAlias = Callable[[int], Callable[[], object]]
"""Makes a batch of the size given, ready on its device, and gives the call that runs it."""


@dataclass(frozen=True, slots=True)
class CoreBench:
    """Settings of the measurement. Every cell runs `2 * rounds` times for `seconds` each.

    Attributes:
        variants: Students: a preset at its full size (random weights, which are as fast as trained
            ones; its rows say so) or a file, each with its own number of cycles or one after a
            colon (`sdpose-lite:1`).
        backends: Of `torch` and `openvino`.
        batches: Crops or images at once.
        precisions: Tried on every backend; what a backend lacks is left out.
        detectors: Names or files as `load_detector` takes them.
        floor: Whether the floor of a CPU is measured, too.
    """

    variants: Sequence[str]
    backends: Sequence[str]
    batches: Sequence[int]
    device: str = "cpu"
    rounds: int = 3
    seconds: float = 1.0
    precisions: Sequence[str] = ("fp32", "auto")
    detectors: Sequence[str] = ("embedded",)
    floor: bool = False


def run_core(bench: CoreBench, progress: Callable[[str], None]) -> str:
    """Measures and gives a Markdown table.

    The ways to run one model are visited in the order A B B A, so that a drift of the machine
    meets all alike. On a CPU one of them is the floor: the network alone in the fastest of several
    settings (`bench.floor`). Without it, the measure is the best way.

    Raises:
        ValueError: an unknown model, backend or device.
    """
    rows: list[list[str]] = []
    kinds = [(name, _student) for name in bench.variants]
    kinds += [(name, _detector) for name in bench.detectors]
    for name, prepare in kinds:
        progress(f"{name}: preparing")
        candidates = dict(_candidates(name, prepare, bench))
        title = _titled(name) if prepare is _student else f"detector {name}"
        for batch in bench.batches:
            calls = {way: work(batch) for way, work in candidates.items()}
            if bench.floor:
                setting, call = (_student_floor if prepare is _student else _detector_floor)(
                    name, batch
                )
                calls[f"{FLOOR}: {setting}"] = call
            speeds = _side_by_side(f"{title}: batch {batch}", calls, batch, bench, progress)
            medians = {way: median(values) for way, values in speeds.items()}
            floor = next((rate for way, rate in medians.items() if way.startswith(FLOOR)), None)
            rows.extend(
                [
                    title,
                    way,
                    str(batch),
                    spread(values),
                    f"{1000 * batch / medians[way]:.1f}",
                    f"{medians[way] / (floor or max(medians.values())):.2f}",
                ]
                for way, values in speeds.items()
            )
    return markdown(HEAD, rows)


def _candidates(
    name: str, prepare: Callable[[str, str, str, str], tuple[str, Work]], bench: CoreBench
) -> Iterator[tuple[str, Work]]:
    """Every way to run a model, once: what `auto` picks may be in the list already."""
    refused: ValueError | None = None
    found = 0
    for backend in bench.backends:
        for precision in bench.precisions:
            try:
                way, work = prepare(name, backend, precision, bench.device)
            except ValueError as error:  # such as int8 of a student
                refused = error
                continue
            found += 1
            yield way, work
    if refused is not None and not found:
        raise refused


def _split(name: str) -> tuple[str, int | None]:
    """A student and its number of cycles, if one follows a colon."""
    variant, _, number = name.rpartition(":")
    return (variant, int(number)) if variant and number.isdecimal() else (name, None)


def _titled(name: str) -> str:
    """Title of the rows of a student."""
    return f"{name}, random weights" if _split(name)[0] in PRESETS else name


def _loaded(name: str) -> Student:
    """One for each backend, which may convert it."""
    variant, _ = _split(name)
    return Student(PRESETS[variant]).eval() if variant in PRESETS else load_student(variant)


def _picture() -> Image:
    return np.random.default_rng(0).integers(0, 256, (*PICTURE, 3), dtype=np.uint8)


def _student(name: str, backend: str, precision: str, device: str) -> tuple[str, Work]:
    student = _loaded(name)
    cycles = student.config.cycles.check(_split(name)[1])
    ready = make_backend(student, backend, device, precision)
    size = student.config.input_size

    def prepared(batch: int) -> Callable[[], object]:
        generator = torch.Generator().manual_seed(0)
        # As from OpenCV: channels last in memory.
        pixels = torch.randint(0, 256, (batch, *size, 3), generator=generator, dtype=torch.uint8)
        crops = pixels.permute(0, 3, 1, 2).to(ready.device)

        def call() -> None:
            ready.run(crops, cycles)
            if ready.device.type == "cuda":
                torch.cuda.synchronize(ready.device)

        return call

    return f"{ready.name} {ready.precision}", prepared


def _detector(name: str, backend: str, precision: str, device: str) -> tuple[str, Work]:
    detector = load_detector(name, device=device, backend=backend, precision=precision)

    def prepared(batch: int) -> Callable[[], object]:
        picture = _picture()
        on_cpu = detector.device == "cpu"
        frame = picture if on_cpu else torch.from_numpy(picture).to(detector.device)
        frames = [frame] * batch
        return lambda: detector.detect(frames)

    return f"{detector.backend} {detector.precision}", prepared


def _student_floor(name: str, batch: int) -> tuple[str, Call]:
    student = _loaded(name)
    return student_floor(student, student.config.cycles.check(_split(name)[1]), batch)


def _detector_floor(name: str, batch: int) -> tuple[str, Call]:
    return detector_floor(name, _picture(), batch)


def _side_by_side(
    title: str,
    calls: Mapping[str, Call],
    batch: int,
    bench: CoreBench,
    progress: Callable[[str], None],
) -> dict[str, list[float]]:
    """Items per second of each candidate, `2 * rounds` values."""
    rates = alternate(calls, bench.rounds, bench.seconds, lambda text: progress(f"{title}, {text}"))
    return {way: [batch * rate for rate in values] for way, values in rates.items()}
