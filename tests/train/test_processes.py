"""Several processes of one run: they agree, they pack once, and a killed one can go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from sdpose_core.checkpoints import save_student
from sdpose_core.data.coco import load_coco
from sdpose_core.data.packing import pack_new, packed_coco
from sdpose_core.data.shards import load_shards
from sdpose_core.files.outputs import OutputError
from sdpose_core.model import Student
from sdpose_core.train.loop.state import read_state
from sdpose_core.train.loop.synchronise import Agreement, ComputeClock
from tests.commands import run_command
from tests.service.processes import free_port
from tests.train.people import changing, coco_folder, crop_samples, write_shards
from tests.train.test_training import TINY, run_state
from tests.train.two_processes import STEPS


def shallow(path: Path) -> Path:
    """A student so small that a step takes little time."""
    torch.manual_seed(0)
    save_student(Student(TINY), path)
    return path


@pytest.mark.slow("two processes train, 1 min")
def test_two_processes_train_stop_and_resume(tmp_path: Path) -> None:
    """Bit for bit, from a COCO set that one of them packs; the wish to stop is the second's."""
    shallow(tmp_path / "shallow.safetensors")
    coco_folder(tmp_path / "set", images=3)
    torchrun = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "TORCHELASTIC_RUN_ID": "test",
    }
    processes = []
    for rank in range(2):
        with (tmp_path / f"output-{rank}.txt").open("w") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.train.two_processes", str(tmp_path)],
                    env={**os.environ, **torchrun, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
    outputs = [(tmp_path / f"output-{rank}.txt").read_text() for rank in range(2)]
    assert codes == [0, 0], "\n".join(outputs)
    first, second = (json.loads((tmp_path / f"result-{rank}.json").read_text()) for rank in (0, 1))
    assert first["stopped"] == second["stopped"] == first["resumed"] == second["resumed"]
    assert 2 <= first["stopped"] < STEPS
    assert first["ended"] == second["ended"] == STEPS
    assert first["samples"] == 2 * STEPS
    # One packed, whoever came first.
    assert sum(line.startswith("packing 6 people") for line in first["said"] + second["said"]) == 1
    whole, parts = run_state(tmp_path / "whole"), run_state(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [key for key, value in whole.items() if not torch.equal(value, parts[key])] == []


class Pair:
    """Stands for Fabric in two threads: sums what both say."""

    def __init__(self) -> None:
        self.meet = threading.Barrier(2)
        self.said: list[Tensor] = []
        self.talks = 0

    def member(self, rank: int) -> Any:
        pair = self

        class Member:
            world_size = 2
            is_global_zero = rank == 0
            device = torch.device("cpu")

            def all_reduce(self, data: Tensor, reduce_op: str) -> Tensor:
                assert reduce_op == "sum"
                pair.said.append(data)
                pair.meet.wait(timeout=300)
                total = pair.said[-1] + pair.said[-2]
                if pair.meet.wait(timeout=300) == 0:
                    pair.talks += 1
                return total

        return Member()


def test_processes_see_one_time_and_stop_at_the_same_step() -> None:
    """The second one's clock runs at half the speed; it is asked to stop at its step 60."""
    pair = Pair()
    seen: dict[int, list[float]] = {0: [], 1: []}

    def live(rank: int) -> None:
        clock = ComputeClock()
        agreement = Agreement(pair.member(rank), clock)
        for step in range(300):
            agreement.before_step(rank == 1 and step >= 60)
            if agreement.stopping:
                return
            seen[rank].append(agreement.seconds)
            clock.add(0.1 if rank == 0 else 0.05)

    threads = [threading.Thread(target=live, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert seen[0] == seen[1]
    assert 60 <= len(seen[0]) <= 71
    assert seen[0] == pytest.approx([0.1 * step for step in range(len(seen[0]))], abs=0.11)
    assert pair.talks < 12


def test_a_coco_set_is_packed_once(tmp_path: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set", images=3)
    said: list[str] = []
    first = packed_coco(annotations, images, tmp_path / "crops", say=said.append)
    assert "packing 6 people of people.json" in said[0]
    assert said[-1] == "packed 6 of 6"
    written = {path: path.stat().st_mtime_ns for path in first}
    again: list[str] = []
    assert packed_coco(annotations, images, tmp_path / "crops", say=again.append) == first
    assert again == []
    assert {path: path.stat().st_mtime_ns for path in first} == written
    crops = load_shards(first)
    assert len(crops) == 6
    assert crops.decode(0).shape == (516, 496, 3)
    # Another annotation file is another set; nobody's shards are taken away.
    with changing(annotations) as content:
        content["annotations"] = content["annotations"][:2]
    other = packed_coco(annotations, images, tmp_path / "crops", say=again.append)
    assert "packing 2 people" in again[0]
    assert len(load_shards(other)) == 2
    assert len(load_shards(first)) == 6


def test_packing_that_broke_off_starts_again(tmp_path: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set", images=2)
    missing = next(iter(images.iterdir()))
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(FileNotFoundError):
        packed_coco(annotations, images, tmp_path / "crops")
    missing.write_bytes(content)
    assert len(load_shards(packed_coco(annotations, images, tmp_path / "crops"))) == 4


KILLED_PACK = """
import os, sys
from pathlib import Path
from sdpose_core.data.coco import load_coco
from sdpose_core.data.packing import pack_new
annotations, images, shards = map(Path, sys.argv[1:])
kill = lambda count: os.kill(os.getpid(), 9) if count == 4 else None
pack_new(load_coco(annotations, images), shards, per_shard=2, on_person=kill)
"""


def test_a_set_of_shards_is_complete_or_says_so(tmp_path: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set", images=3)
    found, shards = load_coco(annotations, images), tmp_path / "shards"

    command = [sys.executable, "-c", KILLED_PACK, annotations, images, shards]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (shards / "pose-0000.tar").exists()
    with pytest.raises(ValueError, match="its shards are not complete"):
        load_shards([shards])
    paths = pack_new(found, shards, per_shard=3)
    assert sorted(shards.iterdir()) == paths
    assert len(load_shards([shards])) == 6
    with pytest.raises(OutputError, match="holds shards: give another folder"):
        pack_new(found, shards)
    next(iter(images.iterdir())).unlink()
    with pytest.raises(FileNotFoundError):
        pack_new(found, tmp_path / "others", per_shard=1)
    assert not (tmp_path / "others").exists()


@pytest.mark.slow("kills a run that trains, 1 min")
def test_a_killed_run_goes_on_without_its_start(tmp_path: Path) -> None:
    """SIGKILL in the middle of steps that each save; then the start file is gone, too."""
    start = shallow(tmp_path / "shallow.safetensors")
    write_shards(tmp_path / "shards", crop_samples(4))
    recipe, run = tmp_path / "run.toml", tmp_path / "run"
    recipe.write_text(
        'accelerator = "cpu"\nprecision = "32-true"\nthreads = 1\ncheckpoint_minutes = 0.0\n'
        "devices = 1\n[[stages]]\nbatch = 2\nsteps = 100000\n"
    )
    command = [sys.executable, "-c", "from service.cli.main import main; main()", "train"]
    command += ["--config", str(recipe), "--run", str(run), "--start", str(start)]
    command += ["--shards", str(tmp_path / "shards")]
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            seen: set[int] = set()
            while len(seen) < 4 and process.poll() is None:
                if (run / "state.pt").exists():
                    seen.add((run / "state.pt").stat().st_ino)
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert len(seen) >= 4, (tmp_path / "output.txt").read_text()
    counters, _ = read_state(run)
    assert counters.step >= 1
    saved = (run / "config.json").read_bytes()
    start.unlink()
    done = run_command(*command[:4], "--resume", "--run", run, "--steps", "2", "--minutes", "600")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_state(run)[0].step == counters.step + 2
    assert (run / "config.json").read_bytes() == saved
    assert list(run.glob(".*.partial")) == []


@pytest.mark.slow("kills a run under torchrun, 1 min")
def test_torchrun_ends_when_a_process_is_killed_and_the_run_goes_on(tmp_path: Path) -> None:
    """As the guide says: the same command again with --resume."""
    start = shallow(tmp_path / "shallow.safetensors")
    coco_folder(tmp_path / "set", images=3)
    recipe, run = tmp_path / "run.toml", tmp_path / "run"
    recipe.write_text(
        'accelerator = "cpu"\nprecision = "32-true"\nthreads = 1\ncheckpoint_minutes = 0.0\n'
        f'start = "{start}"\n[data]\ncoco_annotations = "{tmp_path}/set/people.json"\n'
        f'coco_images = "{tmp_path}/set/images"\n'
        "[[stages]]\nbatch = 1\nsteps = 100000\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-port", str(free_port()), "--no-python", "--"]
    torchrun += [str(Path(sys.executable).with_name("sdpose")), "train", "--devices", "2"]
    with (tmp_path / "output.txt").open("w") as output:
        launcher = subprocess.Popen(
            [*torchrun, "--config", str(recipe), "--run", str(run)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while not ((run / "state.pt").exists() and read_state(run)[0].step):
                assert launcher.poll() is None, (tmp_path / "output.txt").read_text()
                time.sleep(0.05)
            both = [child.pid for child in psutil.Process(launcher.pid).children()]
            assert len(both) == 2
            os.kill(both[1], signal.SIGKILL)
            assert launcher.wait() != 0
        finally:
            launcher.kill()
    assert not any(Path(f"/proc/{pid}").exists() for pid in both)
    before = read_state(run)[0].step
    assert before >= 1
    done = run_command(*torchrun, "--resume", "--run", run, "--steps", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_state(run)[0].step == before + 2
