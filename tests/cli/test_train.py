"""`sdpose pack`, `train`, `evaluate` and `train-detector` as a user types them."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from typer.testing import CliRunner

from sdpose_core.checkpoints import save_student, training_facts
from sdpose_core.data.shards import load_shards
from sdpose_core.heatmaps import encode
from sdpose_core.model import PRESETS, Student
from sdpose_core.skeleton import KEYPOINT_NAMES
from service.cli.main import app
from tests.train.people import coco_folder

RECIPE = """
preset = "compact-cpu"
name = "small"
log_every = 1
precision = "32-true"
[[stages]]
size = [128, 96]
batch = 2
steps = 3
cycles = 1
"""


def sdpose(*words: object) -> str:
    """Run the command; its output. Fails the test on any other exit code than 0."""
    done = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def shallow(tmp_path: Path) -> Path:
    path = tmp_path / "shallow.safetensors"
    torch.manual_seed(0)
    save_student(Student(replace(PRESETS["sdpose-t"], depth=1, heatmap_kind="logits")), path)
    return path


def test_from_a_coco_set_to_a_measured_student(tmp_path: Path, shallow: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set", images=2)
    assert "4 people in 1 shards" in sdpose("pack", annotations, images, tmp_path / "shards")
    assert len(load_shards([tmp_path / "shards"])) == 4
    recipe, run = tmp_path / "small.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    words = ["train", "--config", recipe, "--run", run, "--shards", tmp_path / "shards"]
    words += ["--start", shallow, "--dev-annotations", annotations, "--dev-images", images]
    sdpose(*words, "--steps", 2)
    assert not (run / "best.safetensors").exists()
    refused = CliRunner().invoke(app, [str(w) for w in words])
    assert refused.exit_code == 2
    assert "holds a run" in refused.output.replace("\n", " ")
    sdpose("train", "--resume", "--run", run)
    assert training_facts(run / "best.safetensors")["steps"] == 3

    report = tmp_path / "report.json"
    shown = sdpose(
        *("evaluate", annotations, images, "--student", run / "best.safetensors"),
        *("--backend", "torch", "--no-flip", "--cycles", 2, "--bootstrap", 10),
        *("--worst", tmp_path / "worst", "--output", report),
    )
    assert "left_wrist" in shown
    first, second = json.loads(report.read_text())
    assert first["title"].endswith("1 cycle, no flip test")
    assert second["title"].endswith("2 cycles, no flip test")
    assert 0 <= first["coco"]["AP"] <= 1
    assert len(list((tmp_path / "worst").glob("*.jpg"))) == 4


def constant_student(path: Path, x: float, y: float) -> Path:
    """A student that answers with the same place for every joint, heatmap pixels."""
    student = Student(replace(PRESETS["sdpose-t"], depth=1, heatmap_kind="logits"))
    maps, _ = encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))
    last = student.head[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(10 * maps.flatten())
    save_student(student, path)
    return path


def test_scores_are_calibrated_on_the_set(tmp_path: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set", images=1)
    options = ["--backend", "torch", "--no-flip", "--bootstrap", 0, "--calibrate"]
    # The drawn figures have their hips near the middle and nothing in the corner.
    middle = constant_student(tmp_path / "middle.safetensors", 24, 34)
    ready = tmp_path / "ready.safetensors"
    sdpose("evaluate", annotations, images, "--student", middle, *options, ready)
    numbers = training_facts(ready)["score_calibration"]
    assert numbers["joints"] == 2 * 16
    assert 0.05 < numbers["right"] < 0.5
    assert math.isfinite(numbers["slope"])
    corner = constant_student(tmp_path / "corner.safetensors", 0, 0)
    words = ["evaluate", annotations, images, "--student", corner, *options, tmp_path / "no"]
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code == 2
    assert "right and wrong joints" in " ".join(done.output.split())
    assert not (tmp_path / "no").exists()


class Mirror(BaseHTTPRequestHandler):
    """A server that knows one picture's people: it answers each box with its annotation."""

    people: ClassVar[list[dict[str, Any]]] = []
    asked: ClassVar[list[dict[str, list[str]]]] = []

    def do_POST(self) -> None:
        """Answer ``POST /pose`` in the form of the service."""
        self.rfile.read(int(self.headers["Content-Length"]))
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append(query)
        boxes = json.loads(query["boxes"][0]) if "boxes" in query else None
        answers = []
        for person in self.people:
            x, y, width, height = person["bbox"]
            values = person["keypoints"]
            answers.append(
                {
                    "box": boxes.pop(0)
                    if boxes
                    else {"x": x, "y": y, "width": width, "height": height},
                    "score": 1.0,
                    "keypoints": [
                        {"name": n, "x": values[3 * i], "y": values[3 * i + 1], "score": 0.9}
                        for i, n in enumerate(KEYPOINT_NAMES)
                    ],
                }
            )
        body = json.dumps(
            {
                "people": answers,
                "image": {"width": 420, "height": 300},
                "timings_ms": {},
                "models": {},
                "request_id": "r",
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """URL of a running ``Mirror`` and the set that it knows."""
    annotations, images = coco_folder(tmp_path / "set", images=1)
    Mirror.people = json.loads(annotations.read_text())["annotations"]
    Mirror.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", annotations, images
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("detector", ["given", "embedded"])
def test_a_running_server_is_measured_by_the_same_protocol(
    mirror: tuple[str, Path, Path], tmp_path: Path, detector: str
) -> None:
    url, annotations, images = mirror
    report = tmp_path / "report.json"
    sdpose(
        *("evaluate", annotations, images, "--server", url, "--detector", detector),
        *("--bootstrap", 0, "--output", report),
    )
    plain, flipped = json.loads(report.read_text())
    assert plain["coco"]["AP"] == pytest.approx(1)
    assert plain["mean_oks"] == pytest.approx(1, abs=1e-4)
    assert flipped["title"] == f"{url}, 1 cycle, flip test"
    first, second = Mirror.asked
    assert ("boxes" in first) == (detector == "given")
    assert "flip_test" not in first
    assert second["flip_test"] == ["true"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--config", "paper-x"], "paper-x"),
        (["train", "--resume"], "--resume needs --run"),
        (["evaluate", "no.json", "none"], "no.json"),
        (["pack", "no.json", "none", "out"], "no.json"),
    ],
)
def test_mistakes_end_with_their_reason(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert said in done.output
