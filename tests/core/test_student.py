"""The student's contract beyond parity."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sdpose_core.model import PRESETS, Student, StudentConfig
from sdpose_core.vision.heatmaps import decode_tensor, encode

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
        student.forward_cycles(images, cycles)


def test_half_size_images_give_maps_of_the_same_frame(images: torch.Tensor) -> None:
    student = Student(TINY).eval()
    half = F.avg_pool2d(images.float(), 2)
    outputs = student.forward_cycles(half)
    assert [tuple(output.heatmaps.shape) for output in outputs] == [(2, 17, 64, 48)] * 2
    assert tuple(outputs[0].visual_tokens.shape) == (2, 64, 192)


def test_a_pooling_student_sees_the_averaged_crop(images: torch.Tensor) -> None:
    plain = Student(TINY).eval()
    pooling = Student(replace(TINY, pool=2)).eval()
    pooling.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        half = plain.forward_cycles(F.avg_pool2d(images.float(), 2), 1)[0].heatmaps
        assert torch.equal(pooling(images), half)
        assert torch.equal(pooling.forward_cycles(images, 1)[0].heatmaps, half)


def test_logits_become_gaussians_with_a_peak_of_one() -> None:
    """A head of logits that says exactly the log of a Gaussian is decoded to its centre."""
    student = Student(replace(TINY, heatmap_kind="logits")).eval()
    target, _ = encode(torch.tensor([[[20.25, 31.5]]]), torch.ones(1, 1))
    logits = target.clamp_min(1e-12).log().expand(1, 17, -1, -1)
    head = student.head[-1]
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(logits[0, 0].flatten())
        points, scores = decode_tensor(student(torch.zeros(1, 3, 256, 192)))
    torch.testing.assert_close(points[0, 0], torch.tensor([20.25, 31.5]), atol=0.02, rtol=0)
    assert 0.95 < float(scores[0, 0]) <= 1.01


def test_any_batch_size_gives_the_same_answer(images: torch.Tensor) -> None:
    student = Student(TINY).eval()
    with torch.inference_mode():
        both = student(images)
        torch.testing.assert_close(student(images[:1]), both[:1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch_size": (5, 3)},
        {"heads": 7},
        {"depth": 0},
        {"pool": 5},
    ],
)
def test_impossible_configs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"patch_size|embed_dim|depth|pool"):
        replace(TINY, **wrong)


def test_config_survives_json() -> None:
    for config in PRESETS.values():
        assert StudentConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="not a student config"):
        StudentConfig.from_dict({"name": "x", "colour": "green"})
