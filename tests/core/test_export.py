"""Exported students answer as the student does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

from sdpose_core.checkpoints import load_student
from sdpose_core.export import export_student


@pytest.mark.parametrize("name", ["student.onnx", "student.xml"])
def test_an_exported_student_gives_the_same_heatmaps(name: str, tmp_path: Path) -> None:
    student = load_student("sdpose-t")
    export_student(student, tmp_path / name, cycles=2)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(str(tmp_path / name), "CPU", settings)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 256, 192), generator=generator).float()
    with torch.inference_mode():
        expected = student(images, 2).numpy()
    # An .xml keeps its weights in half precision.
    np.testing.assert_allclose(compiled([images.numpy()])[0], expected, atol=0.02)


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.onnx or \.xml"):
        export_student(load_student("sdpose-t"), tmp_path / "student.engine")
