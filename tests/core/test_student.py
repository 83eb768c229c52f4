"""The student's contract beyond parity."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sdpose_core.model import PRESETS, Student, StudentConfig

TINY = replace(PRESETS["sdpose-t"], depth=1, train_cycles=2)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, 3, 256, 192), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("shape", [(1, 3, 192, 256), (3, 256, 192), (1, 1, 256, 192)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, \(3, 256, 192\)\)"):
        Student(TINY)(torch.zeros(shape))


@pytest.mark.parametrize("cycles", [0, -1])
def test_cycles_below_one_are_refused(cycles: int, images: torch.Tensor) -> None:
    student = Student(TINY)
    with pytest.raises(ValueError, match="cycles"):
        student(images, cycles)
    with pytest.raises(ValueError, match="cycles"):
        student.cycles(student.features(images), cycles)


def test_any_batch_size_gives_the_same_answer(images: torch.Tensor) -> None:
    student = Student(TINY).eval()
    with torch.inference_mode():
        both = student(images)
        torch.testing.assert_close(student(images[:1]), both[:1], atol=1e-5, rtol=1e-4)


def test_config_survives_json() -> None:
    for config in PRESETS.values():
        assert StudentConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="not a student config"):
        StudentConfig.from_dict({"name": "x", "colour": "green"})
    earlier = {**TINY.to_dict(), "heatmap_kind": "gaussian", "pool": 1}
    assert StudentConfig.from_dict(earlier) == TINY
    with pytest.raises(ValueError, match=r"heatmap_kind 'logits': this version runs .* 'gaussian'"):
        StudentConfig.from_dict({**earlier, "heatmap_kind": "logits"})
