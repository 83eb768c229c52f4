"""The measurements of `python -m tools.bench`, on a service that answers at once."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner
from ultralytics.utils import ASSETS

from sdpose_core import PoseEstimator
from service.bench.server import Server
from tests.fakes import marked_image
from tests.pictures import encoded
from tests.service.processes import a_process, free_port
from tests.train.people import coco_folder
from tools import bench
from tools.bench import people
from tools.bench.__main__ import COMMANDS, command, main
from tools.bench.overload import Answer, Run, draw, run_overload
from tools.bench.soak import run_soak

COMMON = {"__main__", "peer_files", "ray_server", "servers"}
JPEG = encoded(marked_image(0x808080, 32, 32), "JPEG")


def test_every_module_is_a_command_by_its_name() -> None:
    modules = {path.stem for path in Path(bench.__path__[0]).glob("[!_]*")} - COMMON
    assert {name.replace("-", "_") for name in COMMANDS} == modules
    for name in COMMANDS:
        assert CliRunner().invoke(command(name), ["--help"]).exit_code == 0, name
    with pytest.raises(SystemExit, match="NAME is one of"):
        main(["nothing"])


def test_detectors_are_measured_and_timed(tmp_path: Path) -> None:
    annotations, images = coco_folder(tmp_path)
    arguments = [str(annotations), str(images), "--precision", "fp32", "--rounds", "1"]
    done = CliRunner().invoke(command("detection"), [*arguments, "--input-size", "320,416"])
    assert done.exit_code == 0, done.output
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    setups = [(size, shape) for size in ("320", "416") for shape in ("square", "fitted")]
    assert [tuple(row[2:4]) for row in rows] == setups
    for row in rows:
        assert all(0 <= float(share) <= 1 for share in row[4:7])
        assert all(float(ms) > 0 for ms in row[7:])
    wrong = CliRunner().invoke(command("detection"), [*arguments, "--shape", "round"])
    assert str(wrong.exception).startswith("--shape round: square, fitted or both")


@contextmanager
def a_server(**environment: str) -> Iterator[tuple[Server, subprocess.Popen[bytes]]]:
    ports = free_port(), free_port()
    with a_process(*ports, **environment) as running:
        yield Server("127.0.0.1", *ports, running.pid), running


@pytest.mark.slow("measures a service for seconds")
def test_a_soak_finds_no_answer_lost_where_none_is() -> None:
    with a_server() as (server, _):
        seen = run_soak(server, [JPEG], [JPEG], 6.0, lambda _: None, every_s=0.5)
    assert seen.lost == []
    assert seen.outcomes["ok"] > 0
    assert seen.outcomes["frame ok"] > 0
    assert seen.faults.total() > 0
    assert len(seen.samples) >= 2
    last = seen.samples[-1]
    assert last.tasks > 0
    assert last.threads > 2
    report = seen.report()
    assert "Answers lost: 0." in report
    assert "MiB a 1,000 requests" in report


@pytest.mark.slow("measures a service for seconds")
def test_a_soak_counts_what_is_lost() -> None:
    """Of a service that ends in the middle."""
    with a_server() as (server, running):
        threading.Timer(1.0, running.kill).start()
        seen = run_soak(server, [JPEG], [JPEG], 3.0, lambda _: None, every_s=0.2)
    assert seen.lost
    assert "Answers lost: 0." not in seen.report()


@pytest.mark.slow("measures a service for seconds")
def test_an_overload_is_refused_and_over_soon() -> None:
    with a_server(SLOW_S="0.02", SDPOSE_MAX_QUEUE_MS="200") as (server, _):
        run = run_overload(server, [JPEG], 4.0, 3.0, lambda _: None)
    hard = run.between(run.begin_s, run.end_s)
    assert {each.status for each in hard} == {200, 429}
    assert all(each.retry_after for each in hard if each.status == 429)
    assert any(each.status == 200 for each in run.between(0, run.begin_s))
    assert run.goodput > 0
    assert "| any other answer | 0 |" in run.table()


def test_the_plot_of_an_overload(tmp_path: Path) -> None:
    answers = [Answer(n / 10, n / 10 + 0.05, (200, 429)[n % 2], True) for n in range(100)]
    run = Run(5.0, 2.0, 3.0, 7.0, answers)
    draw(run, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow("times networks, 1 min")
def test_a_picture_of_several_people_and_what_it_costs() -> None:
    person = np.full((60, 30, 3), 200, np.uint8)
    for count in (1, 2, 5, 20):
        picture = people.mosaic(person, count)
        assert picture.shape == (480, 640, 3)
        found, _ = cv2.connectedComponents((picture[..., 0] > 150).astype(np.uint8))
        assert found - 1 == count
    estimator = PoseEstimator.from_pretrained()
    cut = people.cut_person(estimator, (ASSETS / "bus.jpg").read_bytes())
    assert 300 < cut.shape[0] < 700
    lines = people.by_people(estimator, cut, [1, 2], 1, 0.05, lambda text: None).splitlines()
    assert len(lines) == 4
    for line in lines[2:]:
        whole, detector, student, share = (float(cell) for cell in line.split(" | ")[1:5])
        assert min(whole, detector, student, share) > 0
    steps = people.parts(estimator, cut, [1], 1, 0.05, lambda text: None)
    assert [line.split(" | ")[0] for line in steps.splitlines()[2:]] == [
        "| decode the JPEG",
        "| detect, all of it",
        "| crop",
        "| student, all of it",
        "| keypoints",
        "| detector's network alone",
    ]


def test_a_picture_of_nobody_makes_no_pictures() -> None:
    estimator = PoseEstimator.from_pretrained()
    with pytest.raises(ValueError, match="shows no person"):
        people.cut_person(estimator, JPEG)
