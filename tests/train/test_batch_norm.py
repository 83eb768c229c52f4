"""Batch norm in and out of a folded backbone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sdpose_core.checkpoints import load_student
from sdpose_core.model import PRESETS, Student
from sdpose_core.train.optim.batch_norm import NormedConv, fold_batch_norm, insert_batch_norm


def pictures(seed: int, count: int = 4) -> Tensor:
    """Normalised noise that is smooth enough to be about a picture."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 16, 12, generator=generator)
    return nn.functional.interpolate(coarse, (64, 48), mode="bilinear")


@torch.no_grad()
def test_in_and_out_changes_nothing() -> None:
    """The embedded backbone: its answers, its names, its weights."""
    backbone = load_student("sdpose-lite").backbone
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    images = pictures(0)
    plain = backbone(images)
    names = insert_batch_norm(backbone, [pictures(1), pictures(2)])
    assert "stem.conv" in names
    assert "final" not in names
    assert sum(isinstance(m, NormedConv) for m in backbone.modules()) == len(names)
    normed = backbone.eval()(images)
    assert float((normed - plain).abs().max()) < 1e-4 * float(plain.abs().max())
    fold_batch_norm(backbone)
    after = backbone.state_dict()
    assert (
        after.keys()
        == before.keys()
        == Student(PRESETS["sdpose-lite"]).backbone.state_dict().keys()
    )
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_measured_statistics_are_those_of_the_batches() -> None:
    """So that training mode, too, begins about where the network was."""
    backbone = load_student("sdpose-lite").backbone.eval()
    images = pictures(0, 16)
    plain = backbone(images)
    unmeasured = load_student("sdpose-lite").backbone
    insert_batch_norm(backbone, [images])
    insert_batch_norm(unmeasured)
    far = float((unmeasured.train()(images) - plain).square().mean())
    near = float((backbone.train()(images) - plain).square().mean())
    assert near < 1e-6 * float(plain.square().mean())
    assert near < 1e-3 * far


def test_folding_follows_what_was_learnt() -> None:
    """Other gains, shifts and running statistics, as after some steps."""
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, 2, 1, groups=2)
    normed = NormedConv(conv, torch.zeros(6), torch.ones(6)).eval()
    with torch.no_grad():
        for values in (normed.norm.weight, normed.norm.bias, normed.norm.running_mean):
            assert values is not None
            values.copy_(torch.randn(6, generator=generator))
        normed.norm.running_var = torch.rand(6, generator=generator) + 0.1
        x = torch.randn(2, 4, 9, 7, generator=generator)
        torch.testing.assert_close(normed.folded()(x), normed(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(conv(x), normed(x), atol=0.1)


@pytest.mark.parametrize("name", ["sdpose-t", "sdpose-lite-s"])
def test_a_backbone_with_norms_is_left_alone(name: str) -> None:
    student = Student(replace(PRESETS[name], depth=1))
    with pytest.raises(ValueError, match="already has batch norm"):
        insert_batch_norm(student.backbone)
