"""Where a run's weights come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sdpose_core.model import PRESETS, Student
from sdpose_core.train.loop.initialise import first_student, load_backbone, published_init
from sdpose_core.train.recipe.config import TrainConfig
from sdpose_core.train.recipe.presets import preset_config


def test_published_weights_are_drawn_as_the_papers_code_draws_them() -> None:
    torch.manual_seed(0)
    student = Student(replace(PRESETS["sdpose-t"], depth=1))
    published_init(student)
    for module in student.backbone.modules():
        if isinstance(module, nn.Conv2d):
            assert float(module.weight.detach().std()) == pytest.approx(0.001, rel=0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())
    # The library's default: uniform up to 1 / sqrt(inputs), biases too.
    for layer in (student.patch_embedding, student.encoder.layers[0].mlp[0]):
        bound = layer.in_features**-0.5
        assert float(layer.weight.detach().abs().max()) == pytest.approx(bound, rel=0.02)
        assert float(layer.bias.detach().abs().max()) == pytest.approx(bound, rel=0.1)
    for index in (1, 3):
        assert float(student.head[index].weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert bool((student.head[index].bias == 0).all())
    assert float(student.keypoint_token.detach().std()) == pytest.approx(0.02, rel=0.1)


def test_only_paper_recipes_draw_so() -> None:
    assert preset_config("paper-b").init == "published"
    assert preset_config("paper-b").evaluate_epochs == 10
    assert preset_config("lite").init == "compact"
    torch.manual_seed(0)
    student, said = first_student(TrainConfig(init="published"))
    assert float(student.backbone.conv1.weight.detach().std()) < 0.002
    assert said == "starts from random weights (published initialisation)"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_backbone_is_taken_where_it_fits(tmp_path: Path, suffix: str) -> None:
    """ImageNet's HRNet-W32 has 64 planes in its first stage where SDPose-B has 32."""
    torch.manual_seed(0)
    pretrained = Student(replace(PRESETS["sdpose-b"], depth=1, stage1_planes=64)).backbone
    state = {f"backbone.{key}": value for key, value in pretrained.state_dict().items()}
    path = tmp_path / f"hrnet{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state, "meta": {}}, path)
    else:
        save_file(state, path)
    student = Student(replace(PRESETS["sdpose-b"], depth=1))
    fitted, total = load_backbone(student, path)
    assert total == sum(v.is_floating_point() for v in student.backbone.state_dict().values())
    assert total / 2 < fitted < total
    ours, theirs = student.backbone.state_dict(), pretrained.state_dict()
    assert torch.equal(ours["conv1.weight"], theirs["conv1.weight"])
    last = "stage3.3.branches.2.3.conv2.weight"
    assert torch.equal(ours[last], theirs[last])


def test_a_file_without_a_backbone_is_refused(tmp_path: Path) -> None:
    student = Student(replace(PRESETS["sdpose-t"], depth=1))
    path = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(8, 3, 7, 7)}, path)
    with pytest.raises(ValueError, match="no tensor fits the backbone 'stemnet'"):
        load_backbone(student, path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable file"):
        load_backbone(student, path)


def test_an_unknown_student_is_named() -> None:
    with pytest.raises(ValueError, match="unknown student 'sdpose-x'"):
        first_student(TrainConfig(student="sdpose-x"))


@pytest.mark.parametrize("field", ["start", "backbone_start"])
def test_a_beginning_from_a_preset_without_weights_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=r"^sdpose-t: this package has no trained weights for it"):
        first_student(replace(TrainConfig(), **{field: "sdpose-t"}))
