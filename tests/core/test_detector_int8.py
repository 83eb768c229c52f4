"""The embedded detector in int8: what it finds, when it is taken, what its files hold."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sdpose_core import PoseEstimator
from sdpose_core.detector import DetectorError, load_detector
from sdpose_core.detector.openvino_ir import facts, read_quantised
from sdpose_core.detector.weights import EMBEDDED_INT8_PATH
from sdpose_core.embedded import DETECTOR
from sdpose_core.hardware import openvino_models
from sdpose_core.types import Floats
from tests.commands import run_command
from tests.pictures import photograph
from tools import quantise_detector


def _overlaps(one: Floats, other: Floats) -> Floats:
    """Intersection over union of boxes row by row."""
    left_top = np.maximum(one[:, :2], other[:, :2])
    right_bottom = np.minimum(one[:, 2:], other[:, 2:])
    shared = np.clip(right_bottom - left_top, 0, None).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    return np.asarray(shared / (areas[0] + areas[1] - shared))


@pytest.mark.parametrize("name", ["bus.jpg", "zidane.jpg"])
def test_finds_the_people_that_fp32_finds(name: str) -> None:
    image = photograph(name)
    exact, quantised = (
        load_detector(device="cpu", backend="openvino", precision=precision).detect([image])[0]
        for precision in ("fp32", "int8")
    )
    assert len(exact) == len(quantised) >= 2
    nearest = [
        int(np.argmax(_overlaps(np.broadcast_to(box, quantised.boxes.shape), quantised.boxes)))
        for box in exact.boxes
    ]
    assert sorted(nearest) == list(range(len(exact)))
    assert _overlaps(exact.boxes, quantised.boxes[nearest]).min() > 0.9
    np.testing.assert_allclose(quantised.scores[nearest], exact.scores, atol=0.08)


def _as_if(monkeypatch: pytest.MonkeyPatch, pays: bool) -> None:
    """As on an x86 without AMX, or with."""
    able = {"FP32", "INT8"} if pays else {"FP32", "INT8", "BF16"}
    processor = {"avx2": True, "amx_bf16": not pays}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(openvino_models, "capabilities", lambda: able)


@pytest.mark.parametrize("pays", [True, False])
def test_auto_takes_it_for_the_embedded_detector_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, pays: bool
) -> None:
    _as_if(monkeypatch, pays)
    detector = load_detector(device="cpu")
    assert (detector.precision == "int8") is pays
    assert detector.name == ("person-n-int8" if pays else "person-n")
    for other in (
        load_detector(device="cpu", precision="fp32"),
        load_detector(device="cpu", backend="torch"),
        load_detector(DETECTOR, device="cpu"),  # a file by its path is taken as it is
    ):
        assert other.precision != "int8"
        assert other.name == "person-n"


def test_an_estimators_precision_is_its_detectors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_if(monkeypatch, True)
    for precision, name in (("auto", "person-n-int8"), ("fp32", "person-n")):
        estimator = PoseEstimator.from_pretrained(device="cpu", precision=precision)
        assert estimator.detector_name == name


@pytest.mark.parametrize(("detector", "backend"), [(DETECTOR, "openvino"), ("embedded", "torch")])
def test_int8_of_what_has_none(detector: str | Path, backend: str) -> None:
    with pytest.raises(
        ValueError, match=r"^precision: int8 is available only for the detector 'embedded'"
    ):
        load_detector(detector, device="cpu", backend=backend, precision="int8")


def test_files_are_small_and_say_what_they_are() -> None:
    files = [EMBEDDED_INT8_PATH, EMBEDDED_INT8_PATH.with_suffix(".bin")]
    assert sum(file.stat().st_size for file in files) < 4_000_000
    model = read_quantised(EMBEDDED_INT8_PATH)
    assert facts(model) == ((8, 16, 32), True)
    told = {
        key: str(model.get_rt_info(["sdpose", key]).astype(str))
        for key in ("origin", "licence", "calibration")
    }
    assert "YOLO11n" in told["origin"]
    assert "AGPL-3.0" in told["licence"]
    assert "NNCF" in told["calibration"]
    weights: dict[str, int] = {}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "Constant":
            kind = operation.get_output_element_type(0).get_type_name()
            weights[kind] = weights.get(kind, 0) + operation.get_byte_size()
    assert weights["i8"] > 2_000_000
    assert weights["f32"] < 500_000


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    copy = shutil.copy(EMBEDDED_INT8_PATH, tmp_path)
    for path in (Path(copy), tmp_path / "none.xml"):  # the first lacks its .bin
        with pytest.raises(DetectorError, match=path.name) as raised:
            read_quantised(path)
        assert "\n" not in str(raised.value)


def test_a_start_needs_neither_conversion_nor_ultralytics() -> None:
    script = """
import sys
from sdpose_core.detector import load_detector
load_detector(device="cpu", precision="int8")
assert "ultralytics" not in sys.modules
"""
    run = run_command(sys.executable, "-c", script)
    assert run.returncode == 0, run.stderr


def test_calibration_images_are_the_same_each_time(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.jpg").touch()
    (tmp_path / "labels.txt").touch()
    assert [path.stem for path in quantise_detector.choose(tmp_path, 4)] == ["0", "2", "5", "7"]
    assert len(quantise_detector.choose(tmp_path, 100)) == 10


def test_making_it_anew_without_nncf(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.setattr(sys, "argv", ["quantise_detector", str(tmp_path)])
    assert quantise_detector.main() == 1
    assert "pip install nncf" in capsys.readouterr().err
