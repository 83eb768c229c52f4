"""A detector by name or path, on the requested hardware."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdpose_core.detector import openvino_ir
from sdpose_core.detector.classes import class_numbers, split_classes
from sdpose_core.detector.factory import FactoryDetector, is_factory
from sdpose_core.detector.openvino_file import FileDetector
from sdpose_core.detector.protocol import DetectorError, LoadedDetector, PersonDetector
from sdpose_core.detector.runners import (
    PRECISIONS,
    OpenVinoRunner,
    Runner,
    TorchRunner,
)
from sdpose_core.detector.weights import (
    EMBEDDED,
    EMBEDDED_INT8_PATH,
    OPENVINO_FILES,
    OURS,
    DetectorFile,
    find_detector,
)
from sdpose_core.detector.yolo import BoxSettings, YoloPersonDetector
from sdpose_core.hardware.choice import choose_hardware
from sdpose_core.types import NO_DETECTOR


def load_detector(
    name_or_path: str | os.PathLike[str] = EMBEDDED,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    cache_folder: Path | None = None,
    classes: str | Iterable[str | int] = (),
    **settings: Any,
) -> LoadedDetector:
    """Load a person detector.

    Args:
        name_or_path: ``"embedded"`` or ``"rtmdet-nano"``; the path of our ``.safetensors`` format,
            of an ultralytics ``.pt`` (YOLOv8, YOLO11, YOLO26), or of an ``.onnx`` or ``.xml`` file
            (docs/detectors.md), which OpenVINO runs on the CPU; ``"package.module:factory"``; or
            the name of a published one such as ``"yolo11n.pt"``, which ultralytics downloads if
            needed.
        device: as of ``choose_hardware``, and so ``backend``.
        precision: ``"auto"`` is the fastest accurate one: fp16 on CUDA; with OpenVINO bf16 where
            the processor has it, else int8 for the embedded detector on an x86 with AVX2 (decision
            7); otherwise, and for an ``.onnx`` or ``.xml`` file, fp32. ``"int8"`` is available only
            for the embedded detector with OpenVINO.
        threads: processor threads of one call with OpenVINO; None leaves it to OpenVINO.
        cache_folder: where converted OpenVINO models are kept; by default the user's cache.
        classes: what to look for, names or numbers of the file, in one text with commas or
            several; by default ``person``. The likeliest of them scores a box.
        **settings: of ``BoxSettings``; a factory's detector has its own.

    Raises:
        DetectorError: no such detector, or its file cannot be used.
        ValueError: as ``choose_hardware``, int8 for a detector other than the embedded one or
            without OpenVINO, or a setting out of range.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    backend, picked = choose_hardware(backend, device)
    requested, boxes = split_classes(classes), BoxSettings(**settings)
    name = os.fspath(name_or_path)
    if is_factory(name):
        if requested:
            raise DetectorError(f"{name}: detector classes are for files; a factory has its own")
        return FactoryDetector(name)
    file = find_detector(name_or_path)
    quantised = name == EMBEDDED and backend == "openvino"
    if precision == "int8" and not quantised:
        raise ValueError(
            f"precision: int8 is available only for the detector {EMBEDDED!r} on the backend "
            f"'openvino', got {name!r} on {backend!r}"
        )
    if file.path.suffix in OPENVINO_FILES:
        return FileDetector(file.path, file.name, requested, precision, threads, boxes)
    if backend == "torch":
        runner: Runner = TorchRunner(file.network(requested), picked, precision)
        return YoloPersonDetector(runner, file.name, boxes)
    # Imported here, as a GPU needs no OpenVINO.
    from sdpose_core.hardware.openvino_models import cached, choose_precision, make_key

    offered = [name for name in PRECISIONS if quantised or name != "int8"]
    precision = choose_precision(precision, offered)
    if precision == "int8":
        class_numbers(requested, OURS, len(OURS), name)
        file = DetectorFile(EMBEDDED_INT8_PATH, EMBEDDED_INT8_PATH.stem)
        model = openvino_ir.read_quantised(file.path)
    else:
        # Not a part without requested classes: files that are in the cache stay valid.
        rows = {"classes": requested} if requested else {}
        key = make_key(detector=file.digest(), **rows)
        model = cached(key, lambda: openvino_ir.convert(file.network(requested)), cache_folder)
    runner = OpenVinoRunner(model, *openvino_ir.facts(model), precision, threads)
    return YoloPersonDetector(runner, file.name, boxes)


def as_detector(
    detector: PersonDetector | str | os.PathLike[str] | None, min_score: float
) -> PersonDetector | None:
    """A detector unchanged, or ``load_detector`` of its name; ``"none"`` is None."""
    if not isinstance(detector, str | os.PathLike):
        return detector
    if os.fspath(detector) == NO_DETECTOR:
        return None
    return load_detector(detector, min_score=min_score)
