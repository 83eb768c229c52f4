"""Configs, presets, rates, averages, clocks."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from sdpose_core.train.loop.synchronise import ComputeClock
from sdpose_core.train.optim.ema import WeightAverage
from sdpose_core.train.optim.schedule import learning_rate, stage_progress
from sdpose_core.train.recipe.config import StageConfig, TrainConfig, within_minutes
from sdpose_core.train.recipe.files import load_config
from sdpose_core.train.recipe.presets import PRESETS, preset_config


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_survive_being_saved(name: str) -> None:
    config = preset_config(name)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("name", "batch"),
    [("paper-t", 64), ("paper-s-v1", 64), ("paper-s-v2", 24), ("paper-b", 32)],
)
def test_paper_recipes_hold_the_published_numbers(name: str, batch: int) -> None:
    config = preset_config(name)
    (stage,) = config.stages
    assert (stage.epochs, stage.batch, stage.rate, stage.warmup_steps) == (300, batch, 1e-3, 500)
    assert (config.optimiser.name, config.optimiser.betas) == ("adam", (0.9, 0.999))
    assert (config.optimiser.weight_decay, config.optimiser.clip, config.optimiser.ema) == (0, 0, 0)
    assert config.loss.tokens == 5e-6
    assert (config.devices, config.precision) == (8, "32-true")
    assert learning_rate(stage, 0, 0.0) == pytest.approx(1e-6)
    assert learning_rate(stage, 250, 0.0) == pytest.approx(0.5005e-3)
    epochs = {199: 1e-3, 200: 1e-4, 259: 1e-4, 260: 1e-5, 299: 1e-5}
    for epoch, rate in epochs.items():
        assert learning_rate(stage, 10_000, epoch / 300) == pytest.approx(rate)


def test_a_file_changes_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'preset = "paper-t"\nname = "mine"\n[data]\nshards = ["a.tar"]\n'
        "[data.augment]\nrotation = 10\n[[stages]]\nminutes = 5\n"
    )
    config = load_config(path)
    assert (config.name, config.student) == ("mine", "sdpose-t")
    assert config.data.shards == ("a.tar",)
    assert config.data.augment == replace(PRESETS["paper-t"].data.augment, rotation=10.0)
    assert config.stages == (StageConfig(minutes=5.0),)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sed = 1", "sed"),
        ('[loss]\ntokens = "l1"', "loss.tokens"),
        ("[[stages]]\nsteps = 3\nminutes = 4", "steps"),
        ("[[stages]]\nbatch = 4", "one of steps"),
        ("[[stages]]\nepochs = 0", "stage.epochs"),
        ("[[stages]]\nminutes = -1", "stage.minutes"),
        ("log_every = 0", "log_every"),
        ("[[stages]]\nsteps = 1\nmilestones = 128", "milestones"),
        ("[data.augment]\nflip_probability = 2.0", "augment.flip"),
        ('seed = "x"', "seed"),
        ("preset = 3", "preset"),
        ("[data]\nshards = 5", "data.shards"),
        ("seed =", "run.toml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=named):
        load_config(path)


def test_minutes_shape_a_recipe() -> None:
    stages = (StageConfig(minutes=5), StageConfig(minutes=20))
    config = within_minutes(replace(preset_config("lite"), stages=stages), 50)
    assert [s.minutes for s in config.stages] == [10, 40]
    paper = within_minutes(preset_config("paper-t"), 30)
    assert [(s.epochs, s.minutes) for s in paper.stages] == [(None, 30)]
    with pytest.raises(ValueError, match="minutes"):
        within_minutes(config, 0)


def test_progress_by_steps_epochs_and_minutes() -> None:
    assert stage_progress(StageConfig(steps=10), 5, 1e9, 10**9, 1) == 0.5
    assert stage_progress(StageConfig(epochs=2), 10**9, 1e9, 50, 100) == 0.25
    assert stage_progress(StageConfig(minutes=2), 10**9, 60, 10**9, 1) == 0.5
    assert stage_progress(StageConfig(steps=0), 0, 0, 0, 1) == 1


def test_rate_holds_then_falls_to_its_share() -> None:
    stage = StageConfig(steps=100, rate=2.0, hold=0.5, final=0.1, warmup_steps=10)
    rates = [learning_rate(stage, s, s / 100) for s in range(101)]
    assert rates[0] == pytest.approx(0.002)
    assert rates[10:51] == [2.0] * 41
    assert all(a > b for a, b in pairwise(rates[50:]))
    assert rates[100] == pytest.approx(0.2)


def test_clock_leaves_pauses_out() -> None:
    clock = ComputeClock(10.0)
    for _ in range(10):
        clock.add(1.0)
    clock.add(3600.0)
    assert clock.seconds == 21.0
    clock.add(3.0)
    assert clock.seconds == 24.0


def test_average_follows_quickly_at_first_and_slowly_later() -> None:
    module = torch.nn.BatchNorm1d(1)
    average = WeightAverage(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(3.0)
        module.num_batches_tracked.fill_(7)
    average.update(module)
    # The first decay is 1 / 10.
    assert average.values["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 3)
    assert average.values["num_batches_tracked"].item() == 7
    for _ in range(200):
        average.update(module)
    before = average.values["weight"].item()
    with torch.no_grad():
        module.weight.fill_(4.0)
    average.update(module)
    assert average.values["weight"].item() == pytest.approx(0.9 * before + 0.1 * 4, rel=1e-5)
    again = WeightAverage(module, 0.9)
    again.load_state_dict(average.state_dict())
    assert again.updates == 202
    assert torch.equal(again.values["weight"], average.values["weight"])
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(module, 1.0)
