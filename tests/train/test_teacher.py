"""A teacher's heatmaps as targets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sdpose_core.checkpoints import load_student
from sdpose_core.heatmaps import merge_flip, mirror
from sdpose_core.model import PRESETS, Student
from sdpose_core.train.objective.losses import heatmap_mse
from sdpose_core.train.objective.teacher import HeatmapTeacher
from sdpose_core.train.recipe.config import TeacherConfig, TrainConfig
from sdpose_core.train.recipe.presets import preset_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 256, 192), generator=torch.Generator().manual_seed(5))


def test_the_target_is_the_flip_test(images: torch.Tensor) -> None:
    student = load_student("sdpose-lite").eval()
    teacher = HeatmapTeacher(load_student("sdpose-lite"), student, CPU, mirrored=True)
    with torch.inference_mode():
        one = student(images)
        both = merge_flip(one, student(mirror(images, aligned=True)))
    torch.testing.assert_close(teacher(images), both)
    plain = HeatmapTeacher(load_student("sdpose-lite"), student, CPU, mirrored=False)
    torch.testing.assert_close(plain(images), one)


def test_a_student_learns_from_it_and_the_teacher_does_not(images: torch.Tensor) -> None:
    student = load_student("sdpose-lite").train()
    network = load_student("sdpose-lite")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    teacher = HeatmapTeacher(network, student, CPU, mirrored=True)
    target = teacher(images)
    assert not target.requires_grad
    optimiser = torch.optim.Adam(student.parameters(), 1e-5)
    losses = []
    for _ in range(4):
        loss = heatmap_mse(student(images), target, torch.ones(2, 17))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_a_teacher_of_other_sizes_is_refused() -> None:
    other = Student(replace(PRESETS["sdpose-lite"], padding=1.3))
    with pytest.raises(ValueError, match="teacher: sdpose-lite answers gaussian maps of"):
        HeatmapTeacher(other, load_student("sdpose-lite"), CPU, mirrored=True)


def test_a_config_names_it() -> None:
    student = load_student("sdpose-lite")
    assert HeatmapTeacher.of(TeacherConfig(), student, CPU) is None
    config = preset_config("lite-flip-gpu")
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert HeatmapTeacher.of(config.teacher, student, CPU) is not None
    with pytest.raises(ValueError, match="nobody"):
        HeatmapTeacher.of(TeacherConfig("nobody"), student, CPU)
