"""Detectors of other projects in ONNX and OpenVINO files: each family, and files of none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

from sdpose_core import PoseEstimator
from sdpose_core.detector import DetectorError, LoadedDetector, load_detector
from sdpose_core.detector.families import RTMDET_LOWEST
from sdpose_core.embedded import RTMDET
from sdpose_core.types import Image
from sdpose_core.vision.image_files import ImageLimits, decode_image
from tests.core.detectors import random_model, save_pt
from tests.core.onnx_detectors import NAMES, rtmdet, save_onnx, yolo

WIDE = np.zeros((64, 128, 3), np.uint8)
"""At half size on a canvas of 64 x 64: in the middle from row 16, at the top left from row 0."""
BOXES = np.array([[8, 20, 28, 44], [30, 18, 60, 46]], np.float32)
SCORES = np.array([[0.9, 0.0, 0.0], [0.0, 0.8, 0.3]], np.float32)
IN_THE_MIDDLE = (BOXES - [0, 16, 0, 16]) * 2
AT_THE_TOP = np.minimum(BOXES * 2, [128, 64, 128, 64])  # clipped to the image


def load(path: Path, classes: str = "", **settings: float) -> LoadedDetector:
    return load_detector(path, device="cpu", precision="fp32", classes=classes, **settings)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save_onnx(tmp_path / "yolo.onnx", {"output0": yolo(BOXES, SCORES)}, metadata=NAMES)


def test_yolo_with_its_class_names(plain: Path) -> None:
    detector = load(plain)
    assert (detector.name, detector.backend, detector.device) == ("yolo", "openvino", "cpu")
    [people] = detector.detect([WIDE])
    np.testing.assert_allclose(people.boxes, IN_THE_MIDDLE[:1], atol=1e-3)
    np.testing.assert_allclose(people.scores, [0.9])
    [dogs] = load(plain, "dog").detect([WIDE])
    np.testing.assert_allclose(dogs.boxes, IN_THE_MIDDLE[1:], atol=1e-3)
    [cats] = load(plain, "2").detect([WIDE])
    np.testing.assert_allclose(cats.scores, [0.3])
    [both] = load(plain, " Cat,person ").detect([torch.from_numpy(WIDE)])
    np.testing.assert_allclose(both.scores, [0.9, 0.3])


def test_overlapping_boxes_of_yolo_are_one(tmp_path: Path) -> None:
    boxes = np.array([[8, 20, 28, 44], [9, 20, 28, 44], [8, 20, 28, 30]], np.float32)
    scores = np.array([[0.6], [0.7], [0.5]], np.float32)
    path = save_onnx(tmp_path / "one.onnx", {"output0": yolo(boxes, scores)})
    [found] = load(path).detect([WIDE])
    np.testing.assert_allclose(found.scores, [0.7, 0.5])
    [found] = load(path, max_overlap=0.2).detect([WIDE])
    np.testing.assert_allclose(found.scores, [0.7])


def test_yolo_end_to_end(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = [*BOXES[0], 0.9, 0]
    rows[0, 1] = [*BOXES[1], 0.8, 1]
    rows[0, 2] = [*(BOXES[0] + 1), 0.7, 0]  # already suppressed, so it stays
    path = save_onnx(tmp_path / "end.onnx", {"output0": rows}, metadata=NAMES)
    [people] = load(path).detect([WIDE])
    np.testing.assert_allclose(people.boxes[:1], IN_THE_MIDDLE[:1], atol=1e-3)
    np.testing.assert_allclose(people.scores, [0.9, 0.7])
    [dogs] = load(path, "dog").detect([WIDE])
    np.testing.assert_allclose(dogs.boxes, IN_THE_MIDDLE[1:], atol=1e-3)


def test_rtmdet_heads(tmp_path: Path) -> None:
    cells = {
        (8, 4, 2): (BOXES[0], [0.9, 0.1]),
        (16, 2, 1): (BOXES[0] + 1, [0.8, 0.1]),  # suppressed
        (32, 1, 1): (BOXES[1], [0.05, 0.6]),
    }
    path = save_onnx(tmp_path / "heads.onnx", rtmdet(cells, classes=2))
    [people] = load(path).detect([WIDE])
    np.testing.assert_allclose(people.boxes, AT_THE_TOP[:1], atol=1e-3)
    np.testing.assert_allclose(people.scores, [0.9], rtol=1e-5)
    [second] = load(path, "1").detect([WIDE])
    np.testing.assert_allclose(second.boxes, AT_THE_TOP[1:], atol=1e-3)
    with pytest.raises(DetectorError, match=r"heads\.onnx: no class '2': .* has 2, from number 0"):
        load(path, "2")


def test_rtmdet_of_mmdeploy(tmp_path: Path) -> None:
    dets = np.concatenate([BOXES, [[0.9], [0.8]]], axis=1).astype(np.float32)[None]
    outputs = {"dets": dets, "labels": np.array([[0, 16]])}
    path = save_onnx(tmp_path / "end2end.onnx", outputs)
    [people] = load(path).detect([WIDE])
    np.testing.assert_allclose(people.boxes, AT_THE_TOP[:1], atol=1e-3)
    [dogs] = load(path, "16").detect([WIDE])
    np.testing.assert_allclose(dogs.boxes, AT_THE_TOP[1:], atol=1e-3)


def _grey(red: int, height: int = 64, width: int = 64) -> Image:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = red
    return image


def test_pixels_of_yolo_are_rgb_of_0_to_1(tmp_path: Path) -> None:
    gain = np.zeros((1, 5, 84), np.float32)
    gain[0, 4, 0] = 0.5
    outputs = {"output0": yolo(BOXES[:1], np.array([[0.3]], np.float32))}
    path = save_onnx(tmp_path / "red.onnx", outputs, gains={"output0": gain}, channel=0)
    found = load(path).detect([_grey(255), _grey(51)])
    np.testing.assert_allclose([one.scores[0] for one in found], [0.8, 0.4], rtol=1e-4)


def test_pixels_of_rtmdet_are_normalised_bgr(tmp_path: Path) -> None:
    heads = rtmdet({(8, 4, 2): (BOXES[0], [0.5])}, classes=1)
    gain = np.zeros_like(heads["head8"])
    gain[0, 4, 2, 0] = 1
    path = save_onnx(tmp_path / "bgr.onnx", heads, gains={"head8": gain}, channel=2)
    [found] = load(path).detect([_grey(200)])
    expected = 1 / (1 + np.exp(-(200 - 123.675) / 58.395))
    np.testing.assert_allclose(found.scores, [expected], rtol=1e-4)


@pytest.mark.parametrize("batch", [1, "batch"])
@pytest.mark.parametrize("size", [(64, 64), ("height", "width")])
def test_batches_and_sizes(
    tmp_path: Path, batch: int | str, size: tuple[int | str, int | str]
) -> None:
    gain = np.zeros((1, 5, 84), np.float32)
    gain[0, 4, 0] = 0.5
    outputs = {"output0": yolo(BOXES[:1], np.array([[0.3]], np.float32))}
    path = save_onnx(
        tmp_path / "any.onnx", outputs, size=size, batch=batch, gains={"output0": gain}
    )
    detector = load(path, input_size=64)
    images = [_grey(255), _grey(51), _grey(102, 32, 64), _grey(0)]
    found = detector.detect(images)
    alone = [detector.detect([image])[0] for image in images]
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert [round(float(found[i].scores[0]), 3) for i in (0, 1, 3)] == [0.8, 0.4, 0.3]
    # A free size gets the smallest canvas that fits, a fixed one is filled up with grey.
    padding = 0 if size == ("height", "width") else 0.5 * 114 / 255
    mean = 0.5 * 102 / 255 * (1 if not padding else 0.5) + padding / 2
    np.testing.assert_allclose(found[2].scores, [0.3 + mean], rtol=1e-4)
    detector.network_alone(images[:2])()


def test_openvino_file(tmp_path: Path) -> None:
    plain = save_onnx(tmp_path / "bare.onnx", {"output0": yolo(BOXES, SCORES)})
    model = ov.Core().read_model(plain)
    model.set_rt_info("person hot_dog cat", ["model_info", "labels"])
    ov.save_model(model, tmp_path / "ir.xml")
    [dogs] = load(tmp_path / "ir.xml", "hot dog").detect([WIDE])
    np.testing.assert_allclose(dogs.boxes, IN_THE_MIDDLE[1:], atol=0.1)
    (tmp_path / "ir.bin").unlink()
    with pytest.raises(DetectorError, match=r"ir\.xml: not an OpenVINO model with its \.bin"):
        load(tmp_path / "ir.xml")


def test_class_that_is_not_there(plain: Path) -> None:
    for wrong in ("horse", "3", "person,horse"):
        with pytest.raises(DetectorError, match=r"yolo\.onnx: .*\(classes: person, dog, cat\)$"):
            load(plain, wrong)


def test_file_without_class_names_needs_numbers(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "bare.onnx", {"output0": yolo(BOXES, SCORES)})
    assert len(load(path, "person").detect([WIDE])[0]) == 1
    with pytest.raises(DetectorError, match="'dog': the file does not name its classes and has 3"):
        load(path, "dog")


@pytest.mark.parametrize("shape", [(1, 84), (1, 25200, 85), (1, 300, 57), (1, 4, 84)])
def test_unknown_layout(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "other.onnx", {"boxes": np.zeros(shape, np.float32)})
    with pytest.raises(DetectorError, match=r"inputs images \[1,3,64,64\]; outputs boxes \[") as no:
        load(path)
    assert "docs/detectors.md" in str(no.value)
    assert "\n" not in str(no.value)


def test_heads_that_are_not_of_strides(tmp_path: Path) -> None:
    heads = {name: np.zeros((1, 8, 8, 5), np.float32) for name in ("a", "b")}
    with pytest.raises(DetectorError, match="no known layout"):
        load(save_onnx(tmp_path / "same.onnx", heads))


def test_metadata_that_does_not_fit(tmp_path: Path) -> None:
    outputs = {"output0": yolo(BOXES, SCORES)}
    pose = save_onnx(tmp_path / "pose.onnx", outputs, metadata={"task": "pose"})
    with pytest.raises(DetectorError, match=r"pose\.onnx: a network for the task 'pose'"):
        load(pose)
    two = save_onnx(tmp_path / "two.onnx", outputs, metadata={"names": "{0: 'a', 1: 'b'}"})
    with pytest.raises(DetectorError, match="names 2 classes, but its output has 3"):
        load(two)
    code = save_onnx(tmp_path / "code.onnx", outputs, metadata={"names": "__import__('os')"})
    assert len(load(code).detect([WIDE])[0]) == 1


def test_scores_that_are_none(tmp_path: Path) -> None:
    outputs = {"output0": yolo(BOXES[:1], np.array([[12.0]], np.float32))}
    with pytest.raises(DetectorError, match=r"logits\.onnx: scores outside 0\.\.1"):
        load(save_onnx(tmp_path / "logits.onnx", outputs))


@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_truncated_file(plain: Path, kept: float) -> None:
    data = RTMDET.read_bytes()
    plain.write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])
    with pytest.raises(DetectorError, match=r"yolo\.onnx: ") as refused:
        load(plain)
    assert "\n" not in str(refused.value)


def test_classes_of_an_ultralytics_file(tmp_path: Path) -> None:
    path = save_pt(random_model("yolov8n", {0: "cat", 1: "dog", 2: "cow"}), tmp_path / "pets.pt")
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    low = {"min_score": 1e-6, "max_overlap": 1.0, "input_size": 160, "max_people": 3000}
    found = {
        classes: load(path, classes, **low).detect([image])[0]
        for classes in ("cat", "1", "dog,cat")
    }
    cat, dog, both = (np.sort(one.scores)[::-1] for one in found.values())
    assert both[0] == pytest.approx(max(cat[0], dog[0]), rel=1e-4)
    torch_one = load_detector(path, device="cpu", backend="torch", classes=["cat", "dog"], **low)
    np.testing.assert_allclose(
        torch_one.detect([image])[0].scores[:20], both[:20], rtol=1e-3, atol=1e-6
    )
    with pytest.raises(DetectorError, match=r"no class named 'horse' \(classes: cat, dog, cow\)"):
        load(path, "horse")


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_ours_have_people_only(backend: str) -> None:
    for precision in ("auto", "fp32"):
        with pytest.raises(DetectorError, match=r"no class named 'dog' \(classes: person\)"):
            load_detector(classes="dog", device="cpu", backend=backend, precision=precision)


def test_estimator_takes_a_name(plain: Path) -> None:
    ready = PoseEstimator.from_pretrained(detector=plain, detector_classes="dog", device="cpu")
    assert ready.detector_name == "yolo"
    assert len(ready.detect([WIDE])[0]) == 1
    assert PoseEstimator(ready.backend, str(plain)).detector_name == "yolo"
    assert PoseEstimator(ready.backend, "none").detector is None


def test_rtmdet_nano_finds_the_people() -> None:
    from ultralytics.utils import ASSETS

    detector = load_detector("rtmdet-nano", device="cpu", precision="fp32", min_score=0.1)
    bus = decode_image((ASSETS / "bus.jpg").read_bytes(), ImageLimits())
    [found] = detector.detect([bus])
    expected = [[53, 398, 239, 904], [220, 406, 349, 856], [666, 353, 810, 871]]
    sure = found.select(min_score=0.5)
    order = np.argsort(sure.boxes[:, 0])
    np.testing.assert_allclose(sure.boxes[order], expected, atol=4)
    assert found.scores.min() > RTMDET_LOWEST
