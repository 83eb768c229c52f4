"""Losses: those of the published implementation, and what each option does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sdpose_core.model import CycleOutput
from sdpose_core.train.objective.losses import (
    heatmap_mse,
    student_loss,
    token_distillation,
)
from sdpose_core.train.recipe.config import LossConfig
from sdpose_core.vision.heatmaps import encode
from tests.core.parity import facts, filled_student, network_input


def reference_targets() -> tuple[Tensor, Tensor]:
    """The targets (2, 17, 64, 48) and weights (2, 17) behind the recorded losses."""
    rng = np.random.default_rng(11)
    centre = rng.uniform(size=(2, 17, 2)) * (47, 63)
    weight = (rng.uniform(size=(2, 17, 1)) > 0.25).astype(np.float32)[..., 0]
    weight[0, 5], weight[1, 3] = 0.5, 1.2
    joints, weights = torch.from_numpy(centre).float(), torch.from_numpy(weight)
    target, kept = encode(joints, weights)
    assert torch.equal(kept, weights)
    return target, weights


@pytest.mark.parametrize("variant", ["sdpose-t", "sdpose-s-v1", "sdpose-s-v2", "sdpose-b"])
def test_losses_are_those_of_the_published_code(variant: str) -> None:
    expected = facts(variant)
    student = filled_student(variant)
    target, weights = reference_targets()
    with torch.inference_mode():
        outputs = student.cycles(student.backbone(network_input()), expected["cycles"])
        terms = student_loss(outputs, target, weights, LossConfig())
    heatmap = sum(float(v) for k, v in terms.items() if k.startswith("heatmap"))
    losses = expected["losses"]
    assert heatmap == pytest.approx(losses["heatmap_loss"], rel=1e-4)
    assert float(terms["visual_tokens"]) == pytest.approx(losses["vis_dist_loss"], rel=1e-4)
    assert float(terms["keypoint_tokens"]) == pytest.approx(losses["kpt_dist_loss"], rel=1e-4)


def outputs_of(count: int, seed: int = 0) -> list[CycleOutput]:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    return [CycleOutput(noise(2, 17, 8, 6), noise(2, 17, 4), noise(2, 5, 4)) for _ in range(count)]


def gradient(output: CycleOutput, part: str) -> float:
    value: Tensor = getattr(output, part)
    return 0.0 if value.grad is None else float(value.grad.abs().sum())


def test_squared_error_is_linear_in_the_weight() -> None:
    maps, target = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    weights = torch.rand(2, 3)
    whole = heatmap_mse(maps, target, weights)
    assert float(heatmap_mse(maps, target, 2 * weights)) == pytest.approx(2 * float(whole))
    by_hand = sum(
        float(weights[b, k] * ((maps[b, k] - target[b, k]) ** 2).mean())
        for b in range(2)
        for k in range(3)
    )
    assert float(whole) == pytest.approx(by_hand / 6)


def test_both_sides_of_the_token_loss_learn() -> None:
    both = outputs_of(3)
    visual, keypoint = token_distillation(both)
    (visual + keypoint).backward()
    assert all(gradient(o, "visual_tokens") > 0 for o in both)
    assert all(gradient(o, "keypoint_tokens") > 0 for o in both)


def test_a_cycle_has_nothing_to_distil_alone() -> None:
    config = LossConfig()
    target, weights = torch.rand(2, 17, 8, 6), torch.ones(2, 17)
    assert set(student_loss(outputs_of(1), target, weights, config)) == {"heatmap"}
    assert set(student_loss(outputs_of(2), target, weights, config)) == {
        "heatmap",
        "heatmap_2",
        "visual_tokens",
        "keypoint_tokens",
    }


def test_terms_are_named_by_their_cycle() -> None:
    """The tokens of cycle 0 have not been through the encoder: nothing is distilled into them."""
    config = LossConfig()
    target, weights = torch.rand(2, 17, 8, 6), torch.ones(2, 17)
    two, three = (
        student_loss(outputs_of(count), target, weights, config, first_cycle=0) for count in (2, 3)
    )
    assert set(two) == {"heatmap_0", "heatmap"}
    assert {"heatmap_2", "visual_tokens", "keypoint_tokens"} <= set(three)
    visual, _ = token_distillation(outputs_of(3)[1:])
    expected = config.tokens * float(visual.detach())
    assert float(three["visual_tokens"].detach()) == pytest.approx(expected)
    assert set(student_loss(outputs_of(1), target, weights, config, 0)) == {"heatmap_0"}
