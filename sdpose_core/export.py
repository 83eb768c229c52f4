"""Students as files for other runtimes: ONNX and OpenVINO."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch

from sdpose_core.model import ServedStudent, Student

SUFFIXES = (".onnx", ".xml")


def export_student(student: Student, target: Path, *, cycles: int | None = None) -> None:
    """Write the served pass: ``(B, 3, 256, 192)`` float RGB 0..255 to heatmaps, any B.

    Raises:
        ValueError: the name ends in neither ``.onnx`` nor ``.xml``, or ONNX is not installed.
    """
    count = student.config.cycles.check(cycles)
    if target.suffix == ".onnx":
        _export_onnx(student, target, count)
    elif target.suffix == ".xml":
        import openvino as ov

        from sdpose_core.backends.openvino import convert

        ov.save_model(convert(student, count), target)
    else:
        raise ValueError(f"{target}: expected a name ending in {' or '.join(SUFFIXES)}")


def _export_onnx(student: Student, target: Path, cycles: int) -> None:
    if find_spec("onnx") is None:
        raise ValueError("ONNX needs the onnx package: pip install 'sdpose-service[export]'")
    example = torch.zeros(2, 3, *student.config.input_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            # The wrapper too: the exporter restores the mode of all its submodules.
            ServedStudent(student, cycles).eval(),
            (example,),
            str(target),
            input_names=["images"],
            output_names=["heatmaps"],
            dynamic_axes={"images": {0: "batch"}, "heatmaps": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
