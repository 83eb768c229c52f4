"""A student that answers without a cycle, and of other sizes: from start to saved file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from sdpose_core.checkpoints import load_student, read_checkpoint, save_student
from sdpose_core.data.augment import AugmentConfig
from sdpose_core.evaluate.breakdown import score_people
from sdpose_core.model import PRESETS, Student
from sdpose_core.train.loop.initialise import first_student
from sdpose_core.train.loop.scoring import DevelopmentSet, development_poses
from sdpose_core.train.loop.trainer import Trainer
from sdpose_core.train.objective.objective import Objective
from sdpose_core.train.optim.optimiser import make_optimiser, set_rate
from sdpose_core.train.recipe.config import (
    DataConfig,
    LossConfig,
    OptimiserConfig,
    StageConfig,
    TrainConfig,
)
from sdpose_core.train.recipe.presets import preset_config
from tests.train import test_training as training
from tests.train.people import coco_folder, crop_set
from tests.train.test_training import logged, run_state

SMALL = replace(
    PRESETS["sdpose-lite"],
    input_size=(128, 96),
    heatmap_size=(32, 24),
    padding=1.1,
    depth=1,
    embed_dim=32,
    heads=2,
    mlp_dim=32,
    head_dim=32,
    patch_size=(4, 4),
)
QUICK = replace(
    training.QUICK,
    student="sdpose-lite",
    data=DataConfig(workers=0, augment=AugmentConfig(colour=0.1)),
    optimiser=OptimiserConfig(name="adamw", ema=0.9),
    stages=(StageConfig(batch=2, steps=2, warmup_steps=0),),
)


@pytest.fixture
def small(tmp_path: Path) -> str:
    """The small student with the embedded backbone's weights, as a file with a score head."""
    torch.manual_seed(0)
    student = Student(SMALL)
    student.backbone.load_state_dict(load_student("sdpose-lite").backbone.state_dict())
    path = tmp_path / "small.safetensors"
    save_student(student, path)
    return str(path)


def tiny(name: str, **changes: Any) -> TrainConfig:
    """A preset so small that a few steps end it."""
    config = preset_config(name)
    stage = replace(config.stages[0], batch=2, minutes=None, steps=2, warmup_steps=0)
    return replace(
        config,
        **{
            "stages": (stage,),
            "accelerator": "cpu",
            "precision": "32-true",
            "log_every": 1,
            "data": replace(config.data, workers=1),
            **changes,
        },
    )


def test_a_student_of_other_sizes_trains_and_is_scored(tmp_path: Path, small: str) -> None:
    annotations, images = coco_folder(tmp_path / "dev", images=1)
    dev = DevelopmentSet.load(annotations, images, SMALL)
    assert dev.crops.shape[1:] == (128, 96, 3)
    trainer = Trainer(replace(QUICK, start=small), tmp_path / "run", crop_set(4), dev)
    trainer.run()
    rows = dict(logged(tmp_path / "run"))
    parts = [f"train/{name}" for name in ("heatmap_0", "heatmap", "heatmap_2")]
    assert rows["train/loss"] == pytest.approx(sum(rows[part] for part in parts), rel=1e-4)
    assert "train/heatmap_3" not in rows
    saved = read_checkpoint(tmp_path / "run" / "best.safetensors")
    # The score head was fitted to other peaks.
    assert saved.config == replace(SMALL, score_width=0, person_width=0)
    kept = saved.training["scores"]
    assert kept["dev/ap"] == trainer.counters.best
    student = load_student(str(tmp_path / "run" / "best.safetensors"))
    for cycles in (0, 2):
        [found] = development_poses(student, dev, cycles=cycles)
        assert found.poses.keypoints.shape == (2, 17, 2)
        if cycles == 0:  # what it serves with
            oks = np.mean([one.oks for one in score_people([found])])
            assert oks == pytest.approx(kept["dev/oks"], abs=0.02)


def test_a_set_of_other_sizes_is_refused(tmp_path: Path, small: str) -> None:
    annotations, images = coco_folder(tmp_path / "dev", images=1)
    dev = DevelopmentSet.load(annotations, images, PRESETS["sdpose-t"])
    with pytest.raises(ValueError, match=r"cut for ViewGeometry\(input_size=\(192, 256\)"):
        Trainer(replace(QUICK, start=small), tmp_path / "run", crop_set(2), dev)


def test_the_embedded_student_has_no_transformer_and_trains(tmp_path: Path) -> None:
    config = replace(QUICK, start="sdpose-lite", stages=(replace(QUICK.stages[0], steps=1),))
    Trainer(config, tmp_path / "run", crop_set(2)).run()
    saved = load_student(str(tmp_path / "run" / "last.safetensors"))
    assert saved.config == replace(
        load_student("sdpose-lite").config, score_width=0, person_width=0
    )


def test_a_backbone_comes_from_a_preset_or_a_raw_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    ours = load_student("sdpose-lite").backbone.state_dict()
    raw = tmp_path / "lite-hrnet.safetensors"
    save_file({key: value.half() for key, value in ours.items()}, raw)
    for start in ("sdpose-lite", str(raw)):
        student, said = first_student(replace(QUICK, backbone_start=start))
        count = len(ours)
        assert f"{count} of the backbone's {count} tensors" in said
        assert student.config.score_width == 0
        for key, value in student.backbone.state_dict().items():
            assert torch.equal(value, ours[key])


def test_the_lite_recipe_takes_its_steps_and_goes_on(tmp_path: Path, small: str) -> None:
    """Crops on the device, another rate for the head; stopped and resumed."""
    lite = preset_config("lite")
    changes = {
        "data": replace(lite.data, workers=1, on_device=True),
        "optimiser": replace(lite.optimiser, head_rate=10.0),
    }
    config, crops = tiny("lite", start=small, **changes), crop_set(4)
    whole = Trainer(config, tmp_path / "whole", crops)
    whole.run()
    first = Trainer(config, tmp_path / "parts", crops)
    first.run(stop_after_steps=1)
    second = Trainer(config, tmp_path / "parts", crops, resume=True)
    second.run()
    one, other = run_state(tmp_path / "whole"), run_state(tmp_path / "parts")
    assert one.keys() == other.keys()
    assert [key for key, value in one.items() if not torch.equal(value, other[key])] == []
    saved = read_checkpoint(tmp_path / "parts" / "last.safetensors")
    expected = Student(replace(SMALL, score_width=0, person_width=0)).state_dict()
    assert saved.state.keys() == expected.keys()
    rates = {group["lr"] for group in second.optimiser.param_groups}
    assert max(rates) == pytest.approx(10 * min(rates))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_head_may_have_another_rate(name: Literal["adam", "adamw"]) -> None:
    """Every parameter once, the backbone's at the stage's rate."""
    student = Student(replace(SMALL, score_width=0, person_width=0))
    objective = Objective(student, LossConfig())
    config = replace(QUICK, optimiser=OptimiserConfig(name=name, head_rate=10.0))
    optimiser = make_optimiser(objective, config)
    set_rate(optimiser, 1e-4)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(rates)
    for key, value in student.named_parameters():
        assert rates[id(value)] == pytest.approx(1e-4 if key.startswith("backbone") else 1e-3)
