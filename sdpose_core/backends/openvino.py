"""Students through OpenVINO, the fastest way on a CPU."""

from __future__ import annotations

import threading
import warnings
from typing import Any, Final

import openvino as ov
import torch
from openvino.preprocess import PrePostProcessor
from torch import Tensor

from sdpose_core.model import ServedStudent, Student

HINTS: Final = {"fp32": "f32", "bf16": "bf16"}


class OpenVINOBackend:
    """A ``PoseBackend`` on the CPU.

    The network takes uint8 crops with channels last, as OpenCV makes them. One inference uses
    all cores, so calls from several threads take turns.

    Args:
        student: In float32 and evaluation mode; it is kept for converting further cycle counts.
        precision: ``"fp32"`` or ``"bf16"``; ``"auto"`` is bf16 where the processor computes in
            it and fp32 elsewhere.
        threads: Cores to use; 0 leaves the choice to OpenVINO.
    """

    name = "openvino"
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    pads = False

    def __init__(self, student: Student, precision: str = "auto", threads: int = 0) -> None:
        self.device = torch.device("cpu")
        self._core = ov.Core()
        able = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = ("bf16" if able else "fp32") if precision == "auto" else precision
        if self.precision not in HINTS:
            raise ValueError(
                f"precision {precision!r}: the openvino backend has {', '.join(HINTS)}"
            )
        self.config = student.config
        self._student = student.eval()
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._requests: dict[int, ov.InferRequest] = {}
        self._lock = threading.Lock()

    def run(self, crops: Tensor, cycles: int | None = None) -> Tensor:
        """See ``PoseBackend.run``; the first call of a cycle count compiles it (seconds)."""
        if crops.dtype != torch.uint8:
            crops = crops.round().clamp(0, 255).to(torch.uint8)
        pixels = crops.permute(0, 2, 3, 1).contiguous().numpy()
        cycles = self._student.config.cycles.check(cycles)
        with self._lock:
            request = self._requests.get(cycles)
            if request is None:
                request = self._requests[cycles] = self._compile(cycles)
            results = request.infer([pixels], share_inputs=True)
            # A copy: the request writes its next answer into the same memory.
            return torch.from_numpy(results[0].copy())

    def _compile(self, cycles: int) -> ov.InferRequest:
        model = convert(self._student, cycles)
        steps = PrePostProcessor(model)
        crops = steps.input()
        crops.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        crops.model().set_layout(ov.Layout("NCHW"))
        crops.preprocess().convert_element_type(ov.Type.f32)
        compiled = self._core.compile_model(steps.build(), "CPU", self._settings)
        return compiled.create_infer_request()


def convert(student: Student, cycles: int) -> ov.Model:
    """The served pass as an OpenVINO model, ``(B, 3, 256, 192)`` float 0..255 with any B."""
    height, width = student.config.input_size
    example = torch.zeros(2, 3, height, width)
    with torch.inference_mode(), warnings.catch_warnings():
        # The shape checks in ``forward`` become constants in the trace, as they may.
        warnings.simplefilter("ignore")
        # Traced here, since the converter's own tracing runs the network several times.
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            ServedStudent(student, cycles).eval(), example, check_trace=False
        )
        return ov.convert_model(
            traced, example_input=example, input=[ov.PartialShape([-1, 3, height, width])]
        )
