"""Exported students answer as the student does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

from sdpose_core.checkpoints import DEFAULT_STUDENT, load_student
from sdpose_core.export import export_student
from sdpose_core.model import Student
from tests.core.parity import filled_student


def transformer() -> Student:
    """An SDPose-T of every part that serving may have: it pools, and its head gives logits.

    With the filled weights, since the maps of fresh ones are nearly flat.
    """
    filled = filled_student("sdpose-t")
    student = Student(replace(filled.config, pool=2, heatmap_kind="logits"))
    student.load_state_dict(filled.state_dict())
    return student.eval()


@pytest.mark.parametrize("name", ["student.onnx", "student.xml"])
@pytest.mark.parametrize(("kind", "cycles"), [("transformer", 2), (DEFAULT_STUDENT, None)])
def test_an_exported_student_gives_the_same_heatmaps(
    kind: str, cycles: int | None, name: str, tmp_path: Path
) -> None:
    student = transformer() if kind == "transformer" else load_student(kind)
    export_student(student, tmp_path / name, cycles=cycles)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(str(tmp_path / name), "CPU", settings)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 256, 192), generator=generator).float()
    with torch.inference_mode():
        expected = student(images, cycles).numpy()
    assert expected.max() > 0.2  # or an answer of nearly nothing would do
    # An .xml keeps its weights in half precision.
    atol = 0.004 if name.endswith(".xml") else 1e-4
    np.testing.assert_allclose(compiled([images.numpy()])[0], expected, atol=atol)


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ending in \.onnx or \.xml"):
        export_student(load_student(), tmp_path / "student.engine")
