"""Detector files: ours, ultralytics', damaged ones and foreign ones."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdpose_core.detector import DetectorError, load_detector
from sdpose_core.detector.embed import write_embedded
from sdpose_core.detector.weights import find_detector, read_metadata
from sdpose_core.embedded import DETECTOR
from tests.commands import run_command
from tests.core.detectors import COCO_START, random_model, save_pt


class Malicious:
    """Leaves a trace when unpickled without care."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detectors")


@pytest.fixture(scope="module")
def pt(folder: Path) -> Path:
    return save_pt(random_model("yolo11n", COCO_START), folder / "eleven.pt")


@pytest.fixture(scope="module")
def ours(folder: Path, pt: Path) -> Path:
    write_embedded(pt, folder / "ours.safetensors", facts={"training": {"epochs": 1}})
    return folder / "ours.safetensors"


@pytest.mark.parametrize("design", ["yolov8n", "yolo11n", "yolo26n"])
def test_converted_file_is_the_same_network(design: str, tmp_path: Path) -> None:
    source = save_pt(random_model(design, {0: "dog", 1: "person"}), tmp_path / "d.pt")
    target = tmp_path / "deep" / "d.safetensors"
    size = write_embedded(source, target)
    assert size == target.stat().st_size
    images = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    before, after = find_detector(source).network(), find_detector(target).network()
    assert before.needs_nms == after.needs_nms
    assert before.strides == after.strides == (8, 16, 32)
    with torch.inference_mode():
        for one, other in zip(before(images), after(images), strict=True):
            torch.testing.assert_close(one, other)


def test_file_says_what_it_is(ours: Path) -> None:
    metadata = read_metadata(ours)
    assert metadata["names"] == ["person"]
    assert metadata["origin"] == "eleven.pt"
    assert metadata["training"] == {"epochs": 1}
    assert "AGPL-3.0" in metadata["licence"]


def test_embedded_detector_is_small_and_ours() -> None:
    assert DETECTOR.stat().st_size <= 6_000_000
    assert read_metadata(DETECTOR)["names"] == ["person"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.pt", r"missing\.pt: no such file"),
        ("folder/missing.safetensors", r"missing\.safetensors: no such file"),
        ("yolo99", "^yolo99: expected 'embedded'"),
    ],
)
def test_a_name_without_a_file(name: str, said: str) -> None:
    with pytest.raises(DetectorError, match=said):
        find_detector(name)


@pytest.mark.parametrize("kept", [0, 100, 0.5])
@pytest.mark.parametrize("kind", ["pt", "ours"])
def test_truncated_file(
    kind: str, kept: float, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    whole: Path = request.getfixturevalue(kind)
    data = whole.read_bytes()
    short = tmp_path / whole.name
    short.write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])
    with pytest.raises(DetectorError, match="truncated") as raised:
        find_detector(short).network()
    assert "\n" not in str(raised.value)


def test_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"model": Malicious(trace)}, tmp_path / "bad.pt")
    with pytest.raises(DetectorError, match="can be read safely") as raised:
        find_detector(tmp_path / "bad.pt").network()
    assert not trace.exists()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("saved", [{"weights": torch.zeros(3)}, [1, 2], torch.nn.Conv2d(3, 4, 1)])
def test_foreign_pt(saved: Any, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "foreign.pt")
    with pytest.raises(DetectorError, match=r"foreign\.pt: ") as raised:
        find_detector(tmp_path / "foreign.pt").network()
    assert "\n" not in str(raised.value)


def test_foreign_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(DetectorError, match="not an sdpose detector"):
        find_detector(tmp_path / "foreign.safetensors").network()


def test_model_without_people(tmp_path: Path) -> None:
    path = save_pt(random_model("yolov8n", {0: "cat", 1: "dog"}), tmp_path / "pets.pt")
    with pytest.raises(DetectorError, match=r"pets\.pt: .*no class named 'person'.*cat, dog"):
        find_detector(path).network()
    with pytest.raises(DetectorError, match="person"):
        write_embedded(path, tmp_path / "pets.safetensors")
    assert not (tmp_path / "pets.safetensors").exists()


def _rewrite(path: Path, target: Path, change: dict[str, Any], drop: str = "") -> Path:
    metadata = {key: json.dumps(value) for key, value in read_metadata(path).items()}
    metadata |= {key: json.dumps(value) for key, value in change.items()}
    state = {key: value for key, value in load_file(path).items() if key != drop}
    save_file(state, target, {"format": "sdpose-detector/1", **metadata})
    return target


def test_plan_from_outside_is_not_evaluated(ours: Path, tmp_path: Path) -> None:
    plan = read_metadata(ours)["plan"]
    trace = tmp_path / "trace"
    evil = {**plan, "activation": f"__import__('os').mkdir({str(trace)!r})"}
    path = _rewrite(ours, tmp_path / "evil.safetensors", {"plan": evil})
    with pytest.raises(DetectorError, match="unknown key 'activation'"):
        find_detector(path).network()
    assert not trace.exists()
    evil = {**plan, "head": [[-1, 1, "torchvision.ops.MLP", [3]], *plan["head"]]}
    path = _rewrite(ours, tmp_path / "other.safetensors", {"plan": evil})
    with pytest.raises(DetectorError, match=r"unknown layer 'torchvision.ops.MLP'"):
        find_detector(path).network()


def test_weights_must_fit_the_plan(ours: Path, tmp_path: Path) -> None:
    path = _rewrite(ours, tmp_path / "m.safetensors", {}, drop="model.0.conv.weight")
    with pytest.raises(
        DetectorError, match=r"do not match the network: model\.0\.conv\.weight missing"
    ):
        find_detector(path).network()


def test_loading_is_silent_offline_and_without_torchvision(pt: Path, tmp_path: Path) -> None:
    script = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("looked up a host")
socket.getaddrinfo = refuse
from sdpose_core.detector import load_detector
load_detector(sys.argv[1], device="cpu", backend="torch")
load_detector(device="cpu", backend="openvino")
assert "torchvision" not in sys.modules
"""
    run = run_command(
        sys.executable,
        "-c",
        script,
        pt,
        env={**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""


def test_settings_are_checked(pt: Path) -> None:
    with pytest.raises(ValueError, match=r"^backend 'tpu': expected one of auto, torch, openvino"):
        load_detector(pt, backend="tpu")
    with pytest.raises(ValueError, match=r"^device 'cuda:99': this machine has \d+ GPUs"):
        load_detector(pt, backend="openvino", device="cuda:99")
    with pytest.raises(ValueError, match=r"^precision: "):
        load_detector(pt, precision="int3")
    for setting in ({"input_size": 100}, {"min_score": 0}, {"max_overlap": 2}, {"max_people": 0}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            load_detector(pt, device="cpu", backend="torch", **setting)
