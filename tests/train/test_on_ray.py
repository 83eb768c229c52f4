"""Training with Ray Train: two processes, of which one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

pytest.importorskip("ray", reason="comes with `make test-all`")

from sdpose_core.hardware.ray_cluster import ClusterError, cluster
from sdpose_core.train.loop.state import read_state
from sdpose_core.train.on_ray import train_on_ray
from sdpose_core.train.recipe.config import TrainConfig
from tests.commands import run_command
from tests.train.people import coco_folder
from tests.train.test_processes import shallow
from tests.train.test_training import run_state
from tests.train.two_processes import recipe

pytestmark = [
    pytest.mark.slow("trains on Ray, 4 min"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's, of its own settings
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
STEPS = 60
TRAIN = [sys.executable, "-m", "sdpose_core", "train"]
ENDLESS = """
start = "{folder}/shallow.safetensors"
accelerator = "cpu"
threads = 1
[data]
coco_annotations = "{folder}/set/people.json"
coco_images = "{folder}/set/images"
[[stages]]
batch = 1
steps = 100000
"""


@pytest.fixture(scope="module", autouse=True)
def on_this_machine() -> Iterator[None]:
    with cluster(None):
        yield


def settings(folder: Path) -> TrainConfig:
    shallow(folder / "shallow.safetensors")
    coco_folder(folder / "set", images=3)
    config = recipe(folder)
    (stage,) = config.stages
    return replace(config, stages=(replace(stage, steps=STEPS),), checkpoint_minutes=0.001)


def workers_of_this_process() -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [each for each in found if "RayTrainWorker" in " ".join(each.info["cmdline"] or ())]


def kill_one_after_a_state(folder: Path, killed: list[int]) -> None:
    while not killed:
        if (folder / "state.pt").exists():
            workers = workers_of_this_process()
            if len(workers) == 2:
                os.kill(workers[1].pid, signal.SIGKILL)
                killed.append(read_state(folder)[0].step)
        time.sleep(0.02)


def test_two_workers_go_on_after_one_was_killed(tmp_path: Path) -> None:
    config = settings(tmp_path)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_after_a_state, args=(tmp_path / "run", killed))
    killer.start()
    step = train_on_ray(config, tmp_path / "run", workers=2)
    killer.join()
    assert len(killed) == 1
    assert 0 < killed[0] < STEPS
    assert step == STEPS
    state = run_state(tmp_path / "run")
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_ctrl_c_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    settings(tmp_path)
    (tmp_path / "endless.toml").write_text(ENDLESS.format(folder=tmp_path))
    run, log = tmp_path / "run", tmp_path / "run" / "log.csv"
    words = ["--config", str(tmp_path / "endless.toml"), "--run", str(run), "--ray-workers", "2"]
    process = subprocess.Popen([*TRAIN, *words], stdout=subprocess.PIPE, text=True)
    try:
        while not (log.exists() and len(log.read_text().splitlines()) > 1):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0
    assert "stopped; --resume continues" in said
    step = read_state(run)[0].step
    assert step > 0
    words = ["--resume", "--run", str(run), "--ray-workers", "1", "--steps", "1"]
    done = run_command(*TRAIN, *words)
    assert done.returncode == 0, done.stderr
    assert f"reached step {step + 1}" in done.stdout


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    words = ["--run", str(tmp_path / "run"), "--ray-workers", "1", "--ray-address", "127.0.0.1:1"]
    done = run_command(*TRAIN, *words)
    assert done.returncode == 2
    assert "no Ray cluster at 127.0.0.1:1" in done.stderr.replace("\n", " ")


def test_more_workers_than_the_cluster_has(tmp_path: Path) -> None:
    config = settings(tmp_path)
    with pytest.raises(ClusterError, match="99 workers need as many CPUs; the cluster has"):
        train_on_ray(config, tmp_path / "run", workers=99)


def test_gpus_that_the_cluster_has_not(tmp_path: Path) -> None:
    config = replace(settings(tmp_path), accelerator="gpu")
    with pytest.raises(ClusterError, match="1 workers need as many GPUs; the cluster has 0"):
        train_on_ray(config, tmp_path / "run", workers=1)


def test_what_is_wrong_with_the_run_is_told(tmp_path: Path) -> None:
    config = replace(settings(tmp_path), start="no-such-student")
    with pytest.raises(ClusterError, match="no-such-student"):
        train_on_ray(config, tmp_path / "run", workers=1, restarts=0)
