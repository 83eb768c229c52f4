"""The four students compute what the published implementation computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdpose_core.checkpoints.official import config_from_shapes, translate
from sdpose_core.model import PAPER, PRESETS, Student
from tests.core.parity import facts, filled_student, network_input, official_state, recorded

TOLERANCE = 2e-5


@pytest.mark.parametrize("variant", PAPER)
def test_parameter_and_key_counts_are_those_of_the_paper(variant: str) -> None:
    expected = facts(variant)
    student = Student(PRESETS[variant])
    parameters = sum(p.numel() for p in student.parameters())
    assert len(student.state_dict()) == expected["keys"]
    assert parameters == expected["parameters"]["trainable"]
    assert parameters + student.pos_embedding.numel() == expected["parameters"]["total"]


@pytest.mark.parametrize("variant", PAPER)
def test_every_cycle_agrees_with_the_reference(variant: str) -> None:
    expected = facts(variant)
    student = filled_student(variant)
    with torch.inference_mode():
        features = student.backbone(network_input())
        outputs = student.cycles(features, expected["cycles"])
    assert len(outputs) == len(expected["outputs"])
    for output, wanted in zip(outputs, expected["outputs"], strict=True):
        for part, numbers in wanted.items():
            tensor = getattr(output, part)
            largest = np.abs(numbers["values"]).max()
            assert list(tensor.shape) == numbers["shape"]
            np.testing.assert_allclose(
                recorded(tensor), numbers["values"], rtol=0, atol=TOLERANCE * largest
            )
            assert abs(float(tensor.mean()) - numbers["mean"]) < TOLERANCE * largest
            assert abs(float(tensor.std(correction=0)) - numbers["std"]) < TOLERANCE * largest


@pytest.mark.parametrize("variant", PAPER)
def test_variant_is_told_from_shapes(variant: str) -> None:
    assert config_from_shapes(translate(official_state(PRESETS[variant]))) == PRESETS[variant]


def test_served_pass_is_the_last_of_the_asked_cycles() -> None:
    student = filled_student("sdpose-t")
    images = torch.randint(0, 256, (2, 3, 256, 192), dtype=torch.uint8)
    with torch.inference_mode():
        cycles = student.cycles(student.features(images), 3)
        for count in (1, 2, 3):
            assert torch.equal(student(images, count), cycles[count - 1].heatmaps)


def test_uint8_and_float_pixels_mean_the_same() -> None:
    student = filled_student("sdpose-t")
    images = torch.randint(0, 256, (1, 3, 256, 192), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(student(images), student(images.float()))
