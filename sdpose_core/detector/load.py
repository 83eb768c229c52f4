"""A detector by name or path, on the requested hardware."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sdpose_core.detector import openvino_ir
from sdpose_core.detector.runners import (
    PRECISIONS,
    OpenVinoRunner,
    Runner,
    TorchRunner,
)
from sdpose_core.detector.weights import (
    EMBEDDED,
    EMBEDDED_INT8_PATH,
    DetectorFile,
    find_detector,
)
from sdpose_core.detector.yolo import YoloPersonDetector
from sdpose_core.hardware.choice import choose_hardware


def load_detector(
    name_or_path: str | os.PathLike[str] = EMBEDDED,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    cache_folder: Path | None = None,
    **settings: Any,
) -> YoloPersonDetector:
    """Load a person detector.

    Args:
        name_or_path: ``"embedded"``; the path of our ``.safetensors`` format or of an ultralytics
            ``.pt`` (YOLOv8, YOLO11, YOLO26, with a class named person); or the name of a published
            one such as ``"yolo11n.pt"``, which ultralytics downloads if needed.
        device: as of ``choose_hardware``, and so ``backend``.
        precision: ``"auto"`` is the fastest accurate one: fp16 on CUDA; with OpenVINO bf16 where
            the processor has it, else int8 for the embedded detector on an x86 with AVX2 (decision
            7); otherwise fp32. ``"int8"`` is available only for the embedded detector with
            OpenVINO.
        threads: processor threads of one call with OpenVINO; None leaves it to OpenVINO.
        cache_folder: where converted OpenVINO models are kept; by default the user's cache.
        **settings: ``min_score``, ``max_overlap``, ``max_people``, ``input_size`` and ``square``
            of ``YoloPersonDetector``.

    Raises:
        DetectorError: no such detector, or its file cannot be used.
        ValueError: as ``choose_hardware``, int8 for a detector other than the embedded one or
            without OpenVINO, or a setting out of range.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    backend, picked = choose_hardware(backend, device)
    file = find_detector(name_or_path)
    quantised = os.fspath(name_or_path) == EMBEDDED and backend == "openvino"
    if precision == "int8" and not quantised:
        raise ValueError(
            f"precision: int8 is available only for the detector {EMBEDDED!r} on the backend "
            f"'openvino', got {os.fspath(name_or_path)!r} on {backend!r}"
        )
    if backend == "torch":
        runner: Runner = TorchRunner(file.network(), picked, precision)
        return YoloPersonDetector(runner, file.name, **settings)
    # Imported here, as a GPU needs no OpenVINO.
    from sdpose_core.hardware.openvino_models import cached, choose_precision, make_key

    offered = [name for name in PRECISIONS if quantised or name != "int8"]
    precision = choose_precision(precision, offered)
    if precision == "int8":
        file = DetectorFile(EMBEDDED_INT8_PATH, EMBEDDED_INT8_PATH.stem)
        model = openvino_ir.read_quantised(file.path)
    else:
        key = make_key(detector=file.digest())
        model = cached(key, lambda: openvino_ir.convert(file.network()), cache_folder)
    runner = OpenVinoRunner(model, *openvino_ir.facts(model), precision, threads)
    return YoloPersonDetector(runner, file.name, **settings)
