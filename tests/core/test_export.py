"""Exported students answer as the student does, whatever runs them."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino as ov
import pytest
import torch
from ultralytics.utils import ASSETS

from sdpose_core import PoseEstimator
from sdpose_core.checkpoints import load_student
from sdpose_core.export import FORMATS, export, export_student
from sdpose_core.hardware.backends.torch import TorchBackend
from sdpose_core.model import Student
from sdpose_core.skeleton import COCO17
from sdpose_core.vision.crops import crop_image
from sdpose_core.vision.geometry import apply_matrices, image_to_crop_matrices, regions_from_boxes
from tests.commands import run_command
from tests.core.parity import filled_student
from tests.pictures import photograph

ROOT = Path(__file__).parents[2]
NAMES = {"onnx": "student.onnx", "openvino": "student.xml", "torchscript": "student.torchscript"}
BOXES = [[48, 398, 243, 904], [668, 390, 810, 880], [222, 405, 345, 860]]


def transformer() -> Student:
    """An SDPose-T with the filled weights, since the maps of fresh ones are nearly flat."""
    return filled_student("sdpose-t").eval()


def by_onnx(path: Path) -> Callable[[np.ndarray[Any, Any]], list[Any]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names[:2] == ["keypoints", "scores"]
    return lambda images: session.run(names, {"images": images})


def by_openvino(path: Path) -> Callable[[np.ndarray[Any, Any]], list[Any]]:
    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: [
        compiled([images])[name] for name in ("keypoints", "scores", "visibility")
    ]


def by_torchscript(path: Path) -> Callable[[np.ndarray[Any, Any]], list[Any]]:
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        module = torch.jit.load(str(path))
    return lambda images: [part.numpy() for part in module(torch.from_numpy(images))]


RUN = {"onnx": by_onnx, "openvino": by_openvino, "torchscript": by_torchscript}


EVERY_KIND = pytest.mark.parametrize("kind", list(FORMATS))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The embedded student with its decoding inside, by kind of file and layout of its input."""

    @functools.cache
    def file(kind: str, layout: str) -> Path:
        path = tmp_path_factory.mktemp("exported") / NAMES[kind]
        facts = {"licence": "Apache-2.0"}
        export_student(load_student(), path, keypoints=True, layout=layout, facts=facts)
        return path

    return file


@EVERY_KIND
def test_an_exported_student_gives_the_same_heatmaps(kind: str, tmp_path: Path) -> None:
    student = transformer()
    path = tmp_path / NAMES[kind]
    assert export_student(student, path, cycles=2) < 1e-3
    run = FORMATS[kind].read(path)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 256, 192), generator=generator).float()
    with torch.inference_mode():
        expected = student(images, 2).numpy()
    assert expected.max() > 0.2  # or an answer of nearly nothing would do
    np.testing.assert_allclose(run(images.numpy())[0], expected, atol=1e-3)


@EVERY_KIND
@pytest.mark.parametrize("layout", ["nchw", pytest.param("nhwc", marks=pytest.mark.slow("10 s"))])
def test_keypoints_are_those_of_the_service(
    kind: str, layout: str, exported: Callable[[str, str], Path]
) -> None:
    student = load_student()
    image = photograph("bus.jpg")
    estimator = PoseEstimator(TorchBackend(load_student(), "cpu"), scores=load_student().scores)
    # Before the last step: a file sees a crop and does not know where the image ends.
    [(points, joint_scores, visibility)] = estimator.pose([estimator.crop(image, BOXES)])
    regions = regions_from_boxes(BOXES, student.config.view)
    crops = crop_image(image, regions)
    if layout == "nchw":
        crops = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    run = RUN[kind](exported(kind, layout))
    places = apply_matrices(image_to_crop_matrices(regions), points)
    for count in (1, 3):
        keypoints, scores, visible = run(crops[:count])
        assert keypoints.shape == (count, 17, 2)
        assert np.abs(keypoints - places[:count]).max() < 0.05
        np.testing.assert_allclose(scores, joint_scores[:count], atol=2e-3)
        np.testing.assert_allclose(visible, visibility[:count], atol=2e-3)
    assert joint_scores.max() > 0.8


def test_a_student_without_a_score_head(tmp_path: Path) -> None:
    student = transformer()
    path = tmp_path / "student.onnx"
    export_student(student, path, keypoints=True)
    crops = export.smooth_crops(2, (256, 192), seed=7)
    estimator = PoseEstimator(TorchBackend(transformer(), "cpu"))
    peaks = estimator.backend.run(crops).amax((2, 3)).numpy()
    _, scores = by_onnx(path)(crops.numpy())
    np.testing.assert_allclose(scores, peaks.clip(0, 1), atol=2e-3)


def test_the_script_of_the_docs_runs_without_torch(
    tmp_path: Path, exported: Callable[[str, str], Path]
) -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    [script] = [
        part for part in re.findall(r"<<'END'\n(.*?)^END$", text, re.M | re.S) if "onnxrun" in part
    ]
    assert len([line for line in script.splitlines() if line.strip()]) <= 40
    (tmp_path / "pose.py").write_text("import sys; sys.modules['torch'] = None\n" + script)
    box = [str(side) for side in BOXES[0]]
    done = run_command(
        sys.executable,
        "pose.py",
        str(exported("onnx", "nchw")),
        ASSETS / "bus.jpg",
        *box,
        cwd=tmp_path,
        check=True,
    )
    [person] = json.loads(done.stdout)["people"]
    image = photograph("bus.jpg")
    estimator = PoseEstimator(TorchBackend(load_student(), "cpu"), scores=load_student().scores)
    [expected] = estimator.estimate([image], [BOXES[:1]])
    found = np.array([[joint["x"], joint["y"]] for joint in person["keypoints"]])
    assert [joint["name"] for joint in person["keypoints"]] == list(COCO17.keypoints)
    assert np.abs(found - expected.keypoints[0]).max() < 0.3  # a rounded tenth, another decoder


def metadata(kind: str, path: Path) -> dict[str, Any]:
    if kind == "onnx":
        [text] = [p.value for p in onnx.load(str(path)).metadata_props if p.key == "sdpose"]
    elif kind == "openvino":
        text = ov.Core().read_model(path).get_rt_info(["sdpose"]).astype(str)
    else:
        files = {"sdpose": ""}
        with pytest.warns(DeprecationWarning, match="torch.jit"):
            torch.jit.load(str(path), _extra_files=files)
        text = files["sdpose"]
    found: dict[str, Any] = json.loads(text)
    return found


@EVERY_KIND
def test_the_file_says_what_it_is(kind: str, exported: Callable[[str, str], Path]) -> None:
    found = metadata(kind, exported(kind, "nchw"))
    assert found["preset"] == "sdpose-lite"
    assert (found["input_size"], found["heatmap_size"]) == ([192, 256], [48, 64])
    assert (found["padding"], found["cycles"]) == (1.15, 0)
    assert found["keypoint_names"][0] == "nose"
    assert found["licence"] == "Apache-2.0"
    assert found["input"] == "uint8, NCHW, RGB 0..255"


def test_a_file_that_answers_otherwise_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(b"the file of before")
    right = export.FORMATS["onnx"]

    def shifted(file: Path) -> Callable[[Any], list[Any]]:
        run = right.read(file)
        return lambda images: [run(images)[0] + 0.1, *run(images)[1:]]

    monkeypatch.setattr(export, "FORMATS", {"onnx": replace(right, read=shifted)})
    with pytest.raises(ValueError, match=r"differ by 0\.1.*at most 0\.05"):
        export_student(load_student(), path, keypoints=True)
    assert path.read_bytes() == b"the file of before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["student.onnx"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdpose_core.export import formats

    there = formats.find_spec
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == package else there(name))
    with pytest.raises(ValueError, match=rf"needs the {package} package: pip install"):
        export_student(load_student(), tmp_path / "student.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("student.engine", {}, r"ending in \.onnx, \.xml"),
        ("student.onnx", {"format": "tensorrt"}, "expected one of onnx, openvino"),
        ("student.onnx", {"format": "openvino"}, r"openvino files end in \.xml"),
        ("student.onnx", {"keypoints": True, "layout": "hwc"}, "layout 'hwc'"),
        ("student.onnx", {"layout": "nhwc"}, "heatmap networks take nchw"),
        ("student.onnx", {"cycles": 2}, "cycles: expected 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        export_student(load_student(), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())
