"""The least time that a network takes on this processor: alone, in its best setting.

Nothing but OpenVINO's inference on an input that is ready: no conversion, no copy of the answer, no
decoding. Precisions, threads and streams are tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, Final

import numpy as np

from sdpose_core.detector import load_detector
from sdpose_core.hardware.backends.openvino import OpenVINOBackend
from sdpose_core.hardware.openvino_models import HINTS, capabilities, core
from sdpose_core.model import Student
from sdpose_core.types import Image
from service.bench.alternate import Call, alternate

THREADS: Final = (0, 1)
"""Cores of a stream; 0 leaves it to OpenVINO."""
TRY_S: Final = 0.2


def student_floor(student: Student, cycles: int, batch: int) -> tuple[str, Call]:
    """The fastest setting of a student, what it is and a call that runs it."""
    return _fastest(dict(_student_calls(student, cycles, batch)))


def detector_floor(name: str, picture: Image, batch: int) -> tuple[str, Call]:
    """The same of a detector, for images of one size."""
    calls: dict[str, Call] = {}
    for precision, threads in itertools.product((*_precisions(), "int8"), THREADS):
        try:
            detector = load_detector(
                name, device="cpu", backend="openvino", precision=precision, threads=threads or None
            )
        except ValueError:  # int8 is there for the embedded one only
            continue
        calls[_named(precision, threads, 1)] = detector.network_alone([picture] * batch)
    return _fastest(calls)


def _precisions() -> tuple[str, ...]:
    return ("fp32", "bf16") if "BF16" in capabilities() else ("fp32",)


def _student_calls(student: Student, cycles: int, batch: int) -> Iterator[tuple[str, Call]]:
    pixels = np.random.default_rng(0).integers(
        0, 256, (batch, *student.config.input_size, 3), dtype=np.uint8
    )
    for precision in _precisions():
        model = OpenVINOBackend(student, precision).converted(cycles)
        for threads, streams in itertools.product(THREADS, (1, 2)):
            if batch % streams:
                continue
            name = _named(precision, threads, streams)
            yield name, _inference(model, pixels, precision, threads, streams)


def _inference(model: Any, pixels: Image, precision: str, threads: int, streams: int) -> Call:
    """A call that runs `pixels` in as many parts at once as there are streams."""
    parts = np.split(pixels, streams)
    model = model.clone()
    model.reshape(list(parts[0].shape))
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "NUM_STREAMS": streams,
    }
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads * streams
    compiled = core().compile_model(model, "CPU", settings)
    requests = [(compiled.create_infer_request(), part) for part in parts]

    def call() -> None:
        for request, part in requests:
            request.start_async([part], share_inputs=True)
        for request, _ in requests:
            request.wait()

    return call


def _named(precision: str, threads: int, streams: int) -> str:
    count = threads * streams
    cores = f"{count} core{'s' * (count > 1)}" if count else "all cores"
    return f"{precision}, {cores}, {streams} stream{'s' * (streams > 1)}"


def _fastest(calls: dict[str, Callable[[], object]]) -> tuple[str, Call]:
    rates = alternate(calls, 1, TRY_S, lambda text: None)
    best = max(rates, key=lambda name: median(rates[name]))
    return best, calls[best]
