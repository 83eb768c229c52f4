"""The loop itself, small and on the CPU: it learns, it resumes, it keeps what it promises."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric.plugins.precision import MixedPrecision
from rich.console import Console

from sdpose_core.checkpoints import load_student, read_checkpoint, save_student
from sdpose_core.data.augment import AugmentConfig
from sdpose_core.data.batches import load_batch
from sdpose_core.data.shards import CropSet
from sdpose_core.model import PRESETS, Student
from sdpose_core.train.loop.hardware import make_fabric
from sdpose_core.train.loop.logs import RunLog
from sdpose_core.train.loop.run import load_development, prepare
from sdpose_core.train.loop.scoring import DevelopmentSet
from sdpose_core.train.loop.state import read_state, write_state
from sdpose_core.train.loop.trainer import Trainer
from sdpose_core.train.recipe.config import (
    DataConfig,
    LossConfig,
    OptimiserConfig,
    StageConfig,
    TrainConfig,
)
from sdpose_core.train.recipe.progress import Counters
from sdpose_core.vision.heatmaps import decode_tensor
from tests.train.people import coco_folder, crop_samples, crop_set, write_shards
from tools.bench.training import measure

TINY = replace(PRESETS["sdpose-t"], depth=1, input_size=(128, 96), heatmap_size=(32, 24))
"""One layer and half the size: what these tests are about needs no more."""
QUICK = TrainConfig(
    name="quick",
    data=DataConfig(workers=0, augment=AugmentConfig.none()),
    loss=LossConfig(tokens=0.0),
    optimiser=OptimiserConfig(name="adamw", betas=(0.9, 0.98), clip=5.0, ema=0.9),
    stages=(StageConfig(batch=2, steps=4, warmup_steps=0),),
    accelerator="cpu",
    devices=1,
    precision="32-true",
    log_every=1,
)


def logged(folder: Path) -> list[tuple[str, float]]:
    """Names and values of a run's log, in order."""
    with (folder / "log.csv").open() as file:
        return [(row["name"], float(row["value"])) for row in csv.DictReader(file)]


@pytest.fixture
def shallow(tmp_path: Path) -> str:
    """``TINY`` as a file, to begin with."""
    path = tmp_path / "shallow.safetensors"
    torch.manual_seed(0)
    save_student(Student(TINY), path)
    return str(path)


def share_of_correct_keypoints(student: Student, crops: CropSet, reach: float) -> float:
    """Share of known joints of context crops within ``reach`` pixels, as a student serves."""
    batch = load_batch(crops, np.arange(len(crops)))
    images = torch.from_numpy(batch.images[:, 51:307, 38:230]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        maps = student(images.float())
    points = 4 * decode_tensor(maps)[0].numpy() + (38, 51)
    known = batch.keypoints[..., 2] > 0
    error = np.linalg.norm(points - batch.keypoints[..., :2], axis=2)
    return float((error[known] < reach).mean())


def run_state(folder: Path) -> dict[str, torch.Tensor]:
    content = torch.load(folder / "state.pt", weights_only=True)
    flat: dict[str, torch.Tensor] = {}
    for part in ("objective", "average"):
        for key, value in content[part].items():
            flat[f"{part}.{key}"] = torch.as_tensor(value)
    for index, values in content["optimiser"]["state"].items():
        for key, value in values.items():
            flat[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
    return flat


def test_stopping_and_resuming_is_not_stopping(tmp_path: Path, shallow: str) -> None:
    """Bit for bit: weights, average, optimiser, across the border of two stages."""
    crops = crop_set(7)
    config = replace(
        QUICK,
        start=shallow,
        data=DataConfig(workers=1, augment=AugmentConfig(colour=0.1)),
        stages=(
            StageConfig(batch=2, steps=3, warmup_steps=2),
            StageConfig(batch=3, steps=2, rate=3e-4),
        ),
    )
    Trainer(config, tmp_path / "whole", crops).run()
    first = Trainer(config, tmp_path / "parts", crops)
    first.run(stop_after_steps=2)
    log = tmp_path / "parts" / "log.csv"
    with log.open("a") as file:  # of a process that was killed after its last save
        file.write("3,6,9.9,0,train/loss,1\n4,8,9.9,0,tra")
    second = Trainer(config, tmp_path / "parts", crops, resume=True)
    assert (second.counters.stage, second.counters.step, second.counters.samples) == (0, 2, 4)
    second.run(stop_after_steps=2)
    third = Trainer(config, tmp_path / "parts", crops, resume=True)
    third.run()
    assert third.counters.step == 5
    whole, parts = run_state(tmp_path / "whole"), run_state(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    different = [key for key, value in whole.items() if not torch.equal(value, parts[key])]
    assert different == []
    whole_log = tmp_path / "whole" / "log.csv"
    at, other = (
        [row.split(",")[0::4] for row in f.read_text().splitlines()] for f in (log, whole_log)
    )
    assert at == other, "steps and names"


def test_a_stop_request_saves_and_ends(tmp_path: Path, shallow: str) -> None:
    config = replace(QUICK, start=shallow, stages=(replace(QUICK.stages[0], steps=10_000),))
    trainer = Trainer(config, tmp_path, crop_set(4))
    step = trainer.step

    def step_and_stop(*given: object) -> object:
        if trainer.counters.step == 1:
            thread = threading.Thread(target=trainer.stop)
            thread.start()
            thread.join()
        return step(*given)  # type: ignore[arg-type]

    trainer.step = step_and_stop  # type: ignore[method-assign, assignment]
    trainer.run()
    assert trainer.counters.step == 2
    again = Trainer(config, tmp_path, crop_set(4), resume=True)
    assert again.counters.step == trainer.counters.step
    assert list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial")) == []


def test_a_run_leaves_config_logs_and_the_best_student(tmp_path: Path, shallow: str) -> None:
    annotations, images = coco_folder(tmp_path / "dev", images=2)
    write_shards(tmp_path / "shards", crop_samples(4))
    data = DataConfig(
        shards=(str(tmp_path / "shards"),),
        dev_annotations=str(annotations),
        dev_images=str(images),
        workers=0,
        augment=AugmentConfig.none(),
    )
    stage = replace(QUICK.stages[0], steps=2)
    config = replace(QUICK, start=shallow, data=data, stages=(stage,))
    folder = tmp_path / "run"
    trainer = prepare(config, folder)
    trainer.run()
    assert TrainConfig.from_dict(json.loads((folder / "config.json").read_text())) == config
    names = {name for name, _ in logged(folder)}
    assert {"train/loss", "train/heatmap_3", "rate", "dev/ap", "dev/oks", "dev/oks50"} <= names
    assert list((folder / "tensorboard").glob("events.*"))
    saved = read_checkpoint(folder / "best.safetensors")
    assert saved.config == TINY
    assert saved.training["steps"] == 2
    assert saved.training["scores"]["dev/ap"] == trainer.counters.best
    # The averaged weights are what is kept.
    assert trainer.average is not None
    student = load_student(str(folder / "best.safetensors"))
    expected = trainer.average.values["keypoint_token"].half().float()
    assert torch.equal(student.keypoint_token, expected)


def test_an_accelerator_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accelerator 'tpu'"):
        Trainer(replace(QUICK, accelerator="tpu"), tmp_path, crop_set(2))


def test_more_devices_than_there_are_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = replace(QUICK, accelerator="gpu", devices=8)
    with pytest.raises(ValueError, match=r"8 GPUs requested, this machine has 2; .*--devices"):
        make_fabric(config, "32-true")


def test_a_machine_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="accelerator 'gpu' with devices 8: No supported gpu"):
        make_fabric(replace(QUICK, accelerator="gpu", devices=8), "32-true")


def test_torchrun_must_start_as_many_as_the_config_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="started 2 processes, the config requests 1"):
        make_fabric(QUICK, "32-true")
    assert make_fabric(replace(QUICK, devices=2), "32-true").world_size == 2


def test_a_start_of_another_student_is_refused(tmp_path: Path, shallow: str) -> None:
    config = replace(QUICK, student="sdpose-s-v1", start=shallow)
    with pytest.raises(ValueError, match="'sdpose-t', but the config trains 'sdpose-s-v1'"):
        Trainer(config, tmp_path, crop_set(2))


def test_the_scaler_of_half_precision_is_saved(tmp_path: Path, shallow: str) -> None:
    """As a GPU without bf16 has it; on the CPU the plugin is given a scaler here."""

    def scaled(resume: bool) -> tuple[Trainer, torch.amp.GradScaler]:
        config = replace(QUICK, start=shallow, precision="bf16-mixed")
        trainer = Trainer(config, tmp_path, crop_set(2), resume=resume)
        plugin = trainer.fabric.strategy.precision
        assert isinstance(plugin, MixedPrecision)
        return trainer, plugin.scaler or torch.amp.GradScaler("cpu")

    def with_scaler(plugin: MixedPrecision, *given: object, **named: object) -> None:
        original(plugin, *given, **named)  # type: ignore[arg-type]
        plugin.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    original = MixedPrecision.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MixedPrecision, "__init__", with_scaler)
        first, scaler = scaled(resume=False)
        scaler.load_state_dict({**scaler.state_dict(), "scale": 512.0})
        first.run(stop_after_steps=0)
        _, again = scaled(resume=True)
    assert again.state_dict()["scale"] == 512.0


def test_the_best_student_is_known_after_a_kill(tmp_path: Path, shallow: str) -> None:
    """Killed after ``best.safetensors``, before the state that knows of it."""
    config = replace(QUICK, start=shallow)
    trainer = Trainer(config, tmp_path, crop_set(2))
    trainer.run(stop_after_steps=0)
    facts = {"scores": {"dev/ap": 0.625, "dev/oks": 0.75}}
    save_student(trainer.averaged_student(), tmp_path / "best.safetensors", facts)
    again = Trainer(config, tmp_path, crop_set(2), resume=True)
    assert (again.counters.best, again.counters.best_oks) == (0.625, 0.75)


def test_broken_weights_never_replace_good_ones(tmp_path: Path, shallow: str) -> None:
    trainer = Trainer(replace(QUICK, start=shallow), tmp_path, crop_set(2))
    trainer.run(stop_after_steps=1)
    good = (tmp_path / "state.pt").read_bytes()
    with torch.no_grad():
        trainer.student.keypoint_token[0, 3, 5] = float("nan")
    with pytest.raises(ValueError, match="no longer finite after step 2"):
        trainer.run(stop_after_steps=1)
    assert (tmp_path / "state.pt").read_bytes() == good
    trainer.counters.stage = 1
    with pytest.raises(ValueError, match="no longer finite"):
        trainer.run()
    assert not (tmp_path / "last.safetensors").exists()


def test_a_damaged_state_and_a_changed_config_are_named(tmp_path: Path, shallow: str) -> None:
    config = replace(QUICK, start=shallow)
    other = replace(config, optimiser=replace(config.optimiser, ema=0.0))
    Trainer(other, tmp_path, crop_set(2)).run(stop_after_steps=0)
    with pytest.raises(ValueError, match="its state does not match its config"):
        Trainer(config, tmp_path, crop_set(2), resume=True)
    whole = (tmp_path / "state.pt").read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"state\.pt: not a readable state"):
            Trainer(config, tmp_path, crop_set(2), resume=True)


def test_files_are_on_the_disk_before_they_take_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shallow: str
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def noting_sync(file: int) -> None:
        done.append("written")
        sync(file)

    def noting_rename(source: Path, target: Path) -> None:
        done.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_rename)
    write_state(tmp_path, Counters(), {})
    save_student(load_student(shallow), tmp_path / "best.safetensors")
    assert done == ["written", "state.pt", "written", "best.safetensors"]


def test_half_a_development_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both dev_annotations and dev_images"):
        load_development(DataConfig(dev_annotations=str(tmp_path / "dev.json")), TINY)


def test_scores_come_every_so_many_epochs(tmp_path: Path, shallow: str) -> None:
    """Six steps of two samples, four samples a pass: a score after every second step."""
    annotations, images = coco_folder(tmp_path / "dev", images=1)
    stage = replace(QUICK.stages[0], steps=6)
    config = replace(QUICK, start=shallow, stages=(stage,), evaluate_epochs=1)
    dev = DevelopmentSet.load(annotations, images, TINY)
    trainer = Trainer(config, tmp_path / "run", crop_set(4), dev)
    trainer.run()
    assert [entry["step"] for entry in trainer.history] == [0, 2, 4, 6, 6]
    assert read_state(tmp_path / "run")[0].best == trainer.counters.best


def test_time_to_the_next_score_goes_on_after_a_resume(tmp_path: Path, shallow: str) -> None:
    """Or a run that is stopped more often than it scores would never keep a best student."""
    config = replace(QUICK, start=shallow, evaluate_minutes=10.0)
    Trainer(config, tmp_path, crop_set(2)).run(stop_after_steps=1)
    counters, parts = read_state(tmp_path)
    stage_scored = 100.0
    for seconds, scores in ((stage_scored + 590, []), (stage_scored + 610, [1.0])):
        write_state(
            tmp_path, replace(counters, stage_seconds=seconds, stage_scored=stage_scored), parts
        )
        again = Trainer(config, tmp_path, crop_set(2), resume=True)
        again.run(stop_after_steps=1)
        assert [entry["step"] for entry in again.history] == scores
    assert again.counters.stage_scored == stage_scored + 610


def test_only_the_first_process_reads_the_development_set(
    tmp_path: Path, shallow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path / "shards", crop_samples(2))
    annotations, images = coco_folder(tmp_path / "dev", images=1)
    data = DataConfig((str(tmp_path / "shards"),))
    data = replace(data, dev_annotations=str(annotations), dev_images=str(images))
    config = replace(QUICK, start=shallow, data=data)
    read = prepare(config, tmp_path / "run").dev
    assert read is not None
    assert len(read) == 2
    monkeypatch.setenv("RANK", "1")
    assert prepare(config, tmp_path / "run").dev is None


def test_published_loss_runs_every_cycle(tmp_path: Path, shallow: str) -> None:
    config = replace(
        QUICK,
        start=shallow,
        loss=LossConfig(),
        optimiser=OptimiserConfig(),
        stages=(StageConfig(batch=2, steps=1),),
    )
    trainer = Trainer(config, tmp_path, crop_set(2))
    trainer.run()
    rows = dict(logged(tmp_path))
    parts = [f"train/{n}" for n in ("heatmap", "heatmap_2", "heatmap_3")]
    parts += ["train/visual_tokens", "train/keypoint_tokens"]
    assert rows["train/loss"] == pytest.approx(sum(rows[p] for p in parts), rel=1e-4)


def test_speed_of_every_part_is_measured(tmp_path: Path, shallow: str) -> None:
    trainer = Trainer(replace(QUICK, start=shallow), tmp_path, crop_set(2))
    rates = measure(trainer, seconds=0.1)
    assert list(rates) == ["loader", "views", "views and step", "all"]
    assert all(rate > 0 for rate in rates.values())
    assert rates["views and step"] < rates["views"]


def test_lines_of_a_run_give_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the run has gone since its first line: a resumed one begins in the middle."""
    now = iter((100.0, 130.0, 1000.0))
    clock = SimpleNamespace(monotonic=lambda: next(now))
    monkeypatch.setattr("sdpose_core.train.loop.logs.time", clock)
    shown = io.StringIO()
    with RunLog(tmp_path, console=Console(file=shown, width=80)) as log:
        for done in (0.5, 0.75, 0.8):
            log.progress("loss", done)
    first, second, third = shown.getvalue().splitlines()
    assert first.endswith("loss")
    assert second.endswith("75.0% loss, 30 s left")
    assert third.endswith("80.0% loss, 10 min left")
