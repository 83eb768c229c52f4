"""`sdpose train` and the signals that stop it."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sdpose_core.checkpoints import save_student
from sdpose_core.model import PRESETS, Student
from sdpose_core.train.loop.state import read_state
from sdpose_core.train.loop.trainer import Trainer
from service.cli.console import stop_on_interrupt
from service.cli.main import app
from tests.train.people import crop_samples, write_shards

RECIPE = """
accelerator = "cpu"
devices = 1
precision = "32-true"
[[stages]]
batch = 2
steps = 1000
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    torch.manual_seed(0)
    start = tmp_path / "shallow.safetensors"
    save_student(Student(replace(PRESETS["sdpose-t"], depth=1)), start)
    write_shards(tmp_path / "shards", crop_samples(2))
    (tmp_path / "run.toml").write_text(RECIPE)
    step = Trainer.step

    def step_with_a_signal(trainer: Trainer, *given: object) -> object:
        if trainer.counters.step == 1:
            signal.raise_signal(number)
        return step(trainer, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "step", step_with_a_signal)
    before = signal.getsignal(number)
    words = ["train", "--config", tmp_path / "run.toml", "--run", tmp_path / "run"]
    words += ["--start", start, "--shards", tmp_path / "shards"]
    done = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "stopped; --resume continues" in done.output
    assert read_state(tmp_path / "run")[0].step == 2
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    asked: list[str] = []
    # What began in the background of a shell ignores Ctrl-C, tests among it.
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_on_interrupt(lambda: asked.append("stop")) as stopping:
            signal.raise_signal(signal.SIGINT)
            assert stopping()
            assert asked == ["stop"]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, found)
