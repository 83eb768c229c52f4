"""`sdpose pack`, `train`, `evaluate` and `train-detector` as a user types them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from typer.testing import CliRunner

from sdpose_core.checkpoints import load_student, save_student, training_facts
from sdpose_core.data.shards import load_shards
from sdpose_core.estimator import PoseEstimator
from sdpose_core.model import PRESETS, Student
from sdpose_core.skeleton import COCO17
from service.cli.main import app
from service.cli.options import need
from tests.service.conftest import serving
from tests.sites import Request, served
from tests.train.people import coco_folder, constant_student, crop_samples, crop_set, write_shards
from tests.train.test_training import logged, share_of_correct_keypoints

RECIPE = """
name = "small"
accelerator = "cpu"
devices = 1
log_every = 1
precision = "32-true"
[[stages]]
batch = 2
steps = 3
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
    save_student(Student(replace(PRESETS["sdpose-t"], depth=1)), path)
    return path


def test_a_preset_may_be_called_so(tmp_path: Path) -> None:
    for option in ("--config", "--preset"):
        refused = CliRunner().invoke(app, ["train", option, "lite", "--run", str(tmp_path)])
        assert refused.exit_code == 2
        assert '"student": "sdpose-lite"' in refused.output
        assert "no training data" in refused.output
    unknown = CliRunner().invoke(app, ["train", "--preset", "lite-tpu"])
    assert "presets are" in unknown.output.replace("\n", " ")


def test_from_a_coco_set_to_a_measured_student(tmp_path: Path, shallow: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set", images=2)
    assert "4 people in 1 shards" in sdpose("pack", annotations, images, tmp_path / "shards")
    assert len(load_shards([tmp_path / "shards"])) == 4
    recipe, run = tmp_path / "small.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    words = ["train", "--config", recipe, "--run", run, "--shards", tmp_path / "shards"]
    words += ["--start", shallow, "--dev-annotations", annotations, "--dev-images", images]
    sdpose(*words, "--steps", 2)
    assert training_facts(run / "best.safetensors")["steps"] == 0
    refused = CliRunner().invoke(app, [str(w) for w in words])
    assert refused.exit_code == 2
    assert "holds a run" in refused.output.replace("\n", " ")
    sdpose("train", "--resume", "--run", run)
    assert training_facts(run / "last.safetensors")["steps"] == 3

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


OVERFIT = """
name = "overfit"
student = "sdpose-lite"
start = "sdpose-lite"
accelerator = "cpu"
devices = 1
precision = "32-true"
log_every = 1
[data]
workers = 0
[data.augment]
shift_probability = 0.0
flip_probability = 0.0
half_body_probability = 0.0
scale_factor = 0.0
rotation_probability = 0.0
[optimiser]
betas = [0.9, 0.98]
ema = 0.9
name = "adamw"
clip = 0.01
[[stages]]
batch = 8
rate = 1e-3
warmup_steps = 5
hold = 0.6
steps = 30
"""


@pytest.mark.slow("trains until it fits, 1 min")
def test_a_few_steps_on_shards_overfit_eight_crops(tmp_path: Path) -> None:
    """The embedded student, which has seen photographs only, to drawn figures."""
    write_shards(tmp_path / "shards", crop_samples(8), per_shard=5)
    recipe, run, crops = tmp_path / "overfit.toml", tmp_path / "run", crop_set(8)
    recipe.write_text(OVERFIT)
    # 10 crop pixels are a seventh of a figure's torso.
    before = share_of_correct_keypoints(load_student("sdpose-lite"), crops, reach=10.0)
    sdpose("train", "--config", recipe, "--run", run, "--shards", tmp_path / "shards")
    trained = load_student(run / "last.safetensors")
    losses = [value for name, value in logged(run) if name == "train/heatmap_0"]
    assert len(losses) == 30
    assert losses[-1] < losses[0] - 0.001
    assert before < 0.5
    assert share_of_correct_keypoints(trained, crops, reach=10.0) > 0.95


def test_packing_leaves_other_shards_alone(tmp_path: Path) -> None:
    """Shards of an earlier, larger set would be trained on beside the new ones."""
    annotations, images = coco_folder(tmp_path / "set", images=2)
    sdpose("pack", annotations, images, tmp_path / "shards", "--per-shard", 1)
    done = CliRunner().invoke(
        app, ["pack", str(annotations), str(images), str(tmp_path / "shards")]
    )
    assert done.exit_code == 2
    assert "holds shards" in " ".join(done.output.split())
    assert len(load_shards([tmp_path / "shards"])) == 4
    content = json.loads(annotations.read_text())
    annotations.write_text(json.dumps({**content, "annotations": []}))
    done = CliRunner().invoke(app, ["pack", str(annotations), str(images), str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "no person with a labelled joint" in " ".join(done.output.split())


def test_what_the_detector_is_measured_on_is_read_first(tmp_path: Path) -> None:
    """Before the set to train on, which is not there either."""
    words = [
        "train-detector",
        str(tmp_path / "no.yaml"),
        "--annotations",
        str(tmp_path / "no.json"),
    ]
    half = CliRunner().invoke(app, words)
    assert half.exit_code == 2
    assert "--annotations and --images go together" in " ".join(half.output.split())
    done = CliRunner().invoke(app, [*words, "--images", str(tmp_path)])
    assert isinstance(done.exception, FileNotFoundError)
    assert "no.json" in str(done.exception)


def test_what_is_not_installed_is_named() -> None:
    with pytest.raises(ValueError, match=r"needs nowhere_to_be: pip install -e '\.\[train\]'"):
        need("train", "json", "nowhere_to_be")


class Mirror:
    """Answers `POST /pose` for a picture whose people it knows: each box with its annotation.

    And `GET /models`, with COCO's keypoints.
    """

    def __init__(self, people: list[dict[str, Any]]) -> None:
        self.people = people
        self.asked: list[dict[str, list[str]]] = []
        self.knows_flip = True

    def __call__(self, request: Request) -> None:
        if request.path == "/models":
            self._send(request, {"keypoints": COCO17.keypoints})
            return
        request.rfile.read(int(request.headers["Content-Length"]))
        query = parse_qs(urlsplit(request.path).query)
        self.asked.append(query)
        if "flip_test" in query and not self.knows_flip:
            request.send_error(500)
            return
        boxes = json.loads(query["boxes"][0]) if "boxes" in query else []
        answers = []
        for person in self.people:
            box = dict(zip(("x", "y", "width", "height"), person["bbox"], strict=True))
            rows = zip(
                COCO17.keypoints, person["keypoints"][0::3], person["keypoints"][1::3], strict=True
            )
            points = [{"name": name, "x": x, "y": y, "score": 0.9} for name, x, y in rows]
            shown = boxes.pop(0) if boxes else box
            answers.append({"box": shown, "score": 1.0, "keypoints": points})
        image = {"width": 420, "height": 300}
        body = {"people": answers, "image": image, "timings_ms": {}, "models": {}}
        self._send(request, {**body, "request_id": "r"})

    def _send(self, request: Request, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        request.head(Content_Type="application/json", Content_Length=len(data))
        request.wfile.write(data)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Mirror, str, Path, Path]]:
    """A ``Mirror`` with its URL, and the set that it knows."""
    annotations, images = coco_folder(tmp_path / "set", images=1)
    made = Mirror(json.loads(annotations.read_text())["annotations"])
    with served(made) as address:
        yield made, address.removesuffix("/a.jpg"), annotations, images


@pytest.mark.parametrize("detector", ["given", "embedded"])
def test_a_running_server_is_measured_by_the_same_protocol(
    mirror: tuple[Mirror, str, Path, Path], tmp_path: Path, detector: str
) -> None:
    made, url, annotations, images = mirror
    report = tmp_path / "report.json"
    sdpose(
        *("evaluate", annotations, images, "--server", url, "--detector", detector),
        *("--bootstrap", 0, "--output", report),
    )
    plain, flipped = json.loads(report.read_text())
    assert plain["coco"]["AP"] == pytest.approx(1)
    assert plain["mean_oks"] == pytest.approx(1, abs=1e-4)
    assert flipped["title"] == f"{url}, flip test"
    first, second = made.asked
    assert ("boxes" in first) == (detector == "given")
    assert "flip_test" not in first
    assert second["flip_test"] == ["true"]


def test_what_was_measured_before_a_failure_is_kept(
    mirror: tuple[Mirror, str, Path, Path], tmp_path: Path
) -> None:
    made, url, *data = mirror
    made.knows_flip = False
    words = ["evaluate", *data, "--server", url, "--bootstrap", 0, "--output", tmp_path / "r.json"]
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code == 2
    assert "the server rejected it" in " ".join(done.output.split())
    assert len(json.loads((tmp_path / "r.json").read_text())) == 1


def test_the_real_service_gives_what_its_student_gives_here(tmp_path: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set", images=2)
    student = constant_student(tmp_path / "middle.safetensors", 24, 34)
    common = ["evaluate", annotations, images, "--no-flip", "--cycles", 2, "--bootstrap", 0]
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    sdpose(*common, "--student", student, "--backend", "torch", "--output", here)
    estimator = PoseEstimator.from_pretrained(student, "none", "cpu", backend="torch")

    async def ask_the_service() -> str:
        async with serving(estimator, max_batch=2) as service:
            words = (*common, "--server", service.url, "--output", there)
            await asyncio.to_thread(sdpose, *words)
            return service.url

    url = asyncio.run(ask_the_service())
    local, served = json.loads(here.read_text()), json.loads(there.read_text())
    assert [s["title"] for s in served] == [
        f"{url}, 1 cycle, no flip test",
        f"{url}, 2 cycles, no flip test",
    ]
    for one, other in zip(local, served, strict=True):
        assert one["people"] == other["people"] == 4
        assert 0.05 < one["mean_oks"] < 0.95
        assert other["mean_oks"] == pytest.approx(one["mean_oks"], abs=0.005)
        assert other["coco"] == pytest.approx(one["coco"], abs=0.005)


def test_hardware_is_honoured_by_evaluation(tmp_path: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set", images=1)
    student = constant_student(tmp_path / "middle.safetensors", 24, 34)
    words = ["evaluate", annotations, images, "--student", student, "--precision", "fp7"]
    refused = CliRunner().invoke(app, [str(w) for w in words])
    assert refused.exit_code == 2
    assert "fp7" in refused.output


@pytest.mark.parametrize(
    "option",
    [
        ["--student", "sdpose-lite"],  # said, though it is the default
        ["--device", "cpu"],
        ["--backend", "torch"],
        ["--precision", "fp32"],
        ["--unbounded"],
    ],
)
def test_a_server_cannot_be_told_how_to_run(option: list[str]) -> None:
    done = CliRunner().invoke(app, ["evaluate", "no.json", "none", "--server", "x", *option])
    assert done.exit_code == 2
    said = f"{option[0]} cannot go with --server, whose student is already running"
    assert done.output.strip().endswith(said)


def test_a_run_on_labels_stops_goes_on_and_reports(tmp_path: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set")
    run = tmp_path / "run"
    words = ["train", annotations, images, "--run", run, "--minutes", "0.02"]
    begun = sdpose(*words, "--steps", 1)
    assert f"{annotations}: 8 people with 17 keypoints in 4 images" in begun
    assert "all keypoints are known to it" in begun
    assert not (run / "report.md").exists()
    ended = sdpose("train", "--resume", "--run", run)
    assert "held-out people of 1 images, given boxes: AP" in ended.replace("\n", " ")
    assert f"sdpose serve --student {run}/best.safetensors" in ended
    before = (run / "train.json").read_bytes()
    words[1:5] = [run / "train.json", images, "--run", run]
    refused = CliRunner().invoke(app, [str(word) for word in words])
    assert "results would replace this input" in str(refused.exception)
    assert (run / "train.json").read_bytes() == before
    held = sdpose("evaluate", run / "held-out.json", images, "--no-flip", "--bootstrap", 0)
    assert "1 images, 2 people" in held


def test_a_recipe_on_a_coco_set(tmp_path: Path, shallow: Path) -> None:
    annotations, images = coco_folder(tmp_path / "set", images=2)
    recipe, run = tmp_path / "small.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    words = ["train", annotations, images, "--config", recipe, "--run", run, "--start", shallow]
    sdpose(*words, "--coco-cache", tmp_path / "cache")
    assert training_facts(run / "last.safetensors")["crops"] == 4
    assert list((tmp_path / "cache").glob("*/pose-0000.tar"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--config", "paper-x"], "paper-x: neither a file nor a preset; presets are"),
        (["train", "b.json", "--shards", "a"], "b.json and --shards: give one of them"),
        (["train", "b.json", "images", "--resume", "--run", "r"], "b.json cannot go with --resume"),
        (["train", "b.json", "--config", "lite"], "a recipe needs the folder of its images"),
        (["train", "--all-layers"], "--all-layers needs labels to train on, and no --config"),
        (["train", "b.json", "--nodes", "2"], "--nodes belongs to a recipe"),
        (["train", "b.json", "images"], "b.json: no such file; expected a COCO file"),
        (["train", "--resume", "--run", "r", "--config", "lite"], "--config cannot go with"),
        (["train", "--resume", "--run", "r", "--backbone-start", "b"], "--backbone-start cannot"),
        (["train", "--resume"], "--resume needs --run"),
        (["train", "--ray-address", "a:1"], "--ray-address needs --ray-workers"),
        (["train", "--ray-workers", "2", "--nodes", "2"], "--devices and --nodes cannot"),
        (["evaluate", "no.json", "none"], "no.json"),
        (["pack", "no.json", "none", "out"], "no.json"),
        (["train", "--resume", "--run", "nowhere"], "contains no run"),
    ],
)
def test_mistakes_end_with_their_reason(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert said in done.output
