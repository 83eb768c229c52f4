"""Students through OpenVINO, the fastest backend on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Final

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.hardware.backends.folding import folded, folding_pays, has_shuffles
from sdpose_core.hardware.backends.lanes import Lanes
from sdpose_core.hardware.openvino_models import (
    RequestPool,
    cached,
    choose_precision,
    compile_model,
    convert,
    make_key,
    pixels_in,
    weights_digest,
)
from sdpose_core.model import JointReader, ServedStudent, Student, StudentConfig
from sdpose_core.vision.heatmaps import MAX_REFINEMENT

PRECISIONS: Final = ("fp32", "bf16")
ANY_SIZE: Final = -1


class OpenVINOBackend:
    """A ``PoseBackend`` on the CPU.

    The network takes uint8 crops with channels last, as OpenCV makes them. A batch uses all cores,
    so calls from several threads run one at a time: as many crops as fill all ``Lanes`` in parts,
    the rest in one inference.

    At the served number of cycles a rest of each of ``batch_sizes`` has a separate network:
    OpenVINO then knows all shapes in advance. Other sizes and cycles share one for any size, since
    each network takes half a second to compile at startup.

    Args:
        student: In float32 and evaluation mode; it is kept to convert further cycle counts.
        precision: ``"fp32"`` or ``"bf16"``; ``"auto"`` is bf16 if the processor computes in
            it and fp32 elsewhere.
        threads: Cores to use; 0 leaves the choice to OpenVINO.
        cache_folder: Where converted networks are kept; None is the user's cache.

    Raises:
        ValueError: another precision.
    """

    name = "openvino"
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    pads = False

    def __init__(
        self,
        student: Student,
        precision: str = "auto",
        threads: int = 0,
        cache_folder: Path | None = None,
    ) -> None:
        self.device = torch.device("cpu")
        self.precision = choose_precision(precision, PRECISIONS)
        self.config = student.config
        self._student = student.eval()
        self._threads = threads
        self._cache_folder = cache_folder
        self._models: dict[int, ov.Model] = {}
        self._requests: dict[tuple[int, int], ov.InferRequest] = {}
        self._lock = threading.Lock()

    def run(self, crops: Tensor, cycles: int | None = None) -> Tensor:
        """See ``PoseBackend.run``; the first call of a size or cycle count compiles it."""
        if crops.dtype != torch.uint8:
            crops = crops.round().clamp(0, 255).to(torch.uint8)
        pixels = crops.permute(0, 2, 3, 1).contiguous().numpy()
        cycles = self.config.cycles.check(cycles)
        served = cycles == self.config.cycles.served
        with self._lock:
            parts = self._served_lanes.run(pixels) if served and len(pixels) > 1 else []
            answers = [heatmaps for [heatmaps] in parts]
            rest = pixels[sum(map(len, answers)) :]
            if len(rest):
                answers.append(self._infer(rest, cycles, own=served))
        return torch.from_numpy(answers[0] if len(answers) == 1 else np.concatenate(answers))

    def _infer(self, pixels: NDArray[np.uint8], cycles: int, *, own: bool) -> NDArray[np.float32]:
        size = len(pixels) if own and len(pixels) in self.batch_sizes else ANY_SIZE
        request = self._requests.get((cycles, size))
        if request is None:
            request = self._requests[cycles, size] = self._compile(cycles, size)
        results = request.infer([pixels], share_inputs=True)
        # A copy: the request writes its next output into the same memory.
        heatmaps: NDArray[np.float32] = results[0].copy()
        return heatmaps

    def reader(self, module: JointReader) -> Callable[[Tensor], Tensor]:
        """See ``PoseBackend.reader``; the first call compiles it."""

        @cache
        def requests() -> RequestPool:
            model = _cached_reader(module, self.config, self._cache_folder)
            return RequestPool(compile_model(model, "fp32", self._threads))

        def read(heatmaps: Tensor) -> Tensor:
            with requests().borrowed() as request:
                results = request.infer([heatmaps.contiguous().numpy()], share_inputs=True)
                return torch.from_numpy(results[0].copy())

        return read

    def _model(self, cycles: int) -> ov.Model:
        model = self._models.get(cycles)
        if model is None:
            model = self._models[cycles] = self.converted(cycles)
        return model

    def _compile(self, cycles: int, size: int) -> ov.InferRequest:
        model = self._model(cycles)
        if size != ANY_SIZE:
            model = model.clone()  # shares the weights
            model.reshape([size, *self.config.input_size, 3])
        return compile_model(model, self.precision, self._threads).create_infer_request()

    @cached_property
    def _served_lanes(self) -> Lanes:
        cycles = self.config.cycles.served
        shape = (*self.config.input_size, 3)
        return Lanes(self._model(cycles), shape, self.precision, self._threads)

    def converted(self, cycles: int) -> ov.Model:
        """The network of the served pass for uint8 crops, any batch size, not compiled."""
        fold = has_shuffles(self._student) and folding_pays(self.precision)
        return _cached_model(self._student, self._digest, cycles, fold, self._cache_folder)

    @cached_property
    def _digest(self) -> str:
        return weights_digest(self._student)


def fill_cache(student: Student, cache_folder: Path | None = None) -> None:
    """Convert the served pass and its decoding now, for every kind of processor, for the cache.

    For images: they are built on one machine and run on another.

    Args:
        student: In float32.
        cache_folder: Where converted networks are kept; None is the user's cache.
    """
    student = student.eval()
    digest = weights_digest(student)
    for fold in {False, has_shuffles(student)}:
        _cached_model(student, digest, student.config.cycles.served, fold, cache_folder)
    _cached_reader(JointReader(student.scores, MAX_REFINEMENT), student.config, cache_folder)


def _cached_reader(module: JointReader, config: StudentConfig, folder: Path | None) -> ov.Model:
    shape = (config.keypoints, *config.heatmap_size)
    key = make_key(joints=weights_digest(module), shape=shape, max_refinement=module.max_refinement)
    return cached(key, lambda: convert(module, torch.zeros(2, *shape)), folder)


def _cached_model(
    student: Student, digest: str, cycles: int, fold: bool, folder: Path | None
) -> ov.Model:
    key = make_key(student=digest, config=student.config.to_dict(), cycles=cycles, folded=fold)
    return cached(
        key, lambda: convert_student(folded(student) if fold else student, cycles), folder
    )


def convert_student(student: Student, cycles: int) -> ov.Model:
    """The served pass as an OpenVINO model, ``(B, 256, 192, 3)`` uint8 with any B."""
    example = torch.zeros(2, 3, *student.config.input_size)
    return pixels_in(convert(ServedStudent(student, cycles), example)).build()
