"""The embedded detector on real photographs, on both backends, from many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from sdpose_core.detector import YoloPersonDetector, load_detector, openvino_ir
from sdpose_core.detector.network import PersonNetwork
from sdpose_core.types import Detections, Image
from tests.core.detectors import random_model, save_pt


@pytest.fixture(
    scope="module", params=["torch fp32", "openvino fp32", "openvino int8"], ids=lambda p: p
)
def detector(request: pytest.FixtureRequest, cache: Path) -> YoloPersonDetector:
    backend, precision = request.param.split()
    return load_detector(
        device="cpu", backend=backend, precision=precision, cache_folder=cache, input_size=320
    )


def _close(one: Detections, other: Detections, pixels: float = 2.0, scores: float = 0.02) -> None:
    assert len(one) == len(other)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=pixels)
    np.testing.assert_allclose(one.scores, other.scores, atol=scores)


def test_finds_the_people(detector: YoloPersonDetector, bus: Image, zidane: Image) -> None:
    street, coaches = detector.detect([bus, zidane])
    # Their places in the photographs, read off by eye, xyxy.
    for expected in ([48, 398, 244, 904], [223, 405, 345, 860], [670, 391, 810, 880]):
        assert np.abs(street.boxes - expected).max(axis=1).min() < 40
    assert len(coaches) >= 1
    assert np.abs(coaches.boxes - [749, 41, 1149, 711]).max(axis=1).min() < 40
    for image, found in ((bus, street), (zidane, coaches)):
        assert (np.diff(found.scores) <= 0).all()
        assert (found.scores > 0.25).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 2] <= image.shape[1]).all()
        assert (found.boxes[:, 3] <= image.shape[0]).all()


def test_backends_agree(cache: Path, bus: Image) -> None:
    found = [
        load_detector(
            device="cpu", backend=backend, precision="fp32", cache_folder=cache, input_size=320
        ).detect([bus])[0]
        for backend in ("torch", "openvino")
    ]
    _close(*found, pixels=0.1)


def test_an_answer_does_not_depend_on_the_rest_of_the_call(
    detector: YoloPersonDetector, bus: Image, zidane: Image
) -> None:
    pictures = [bus, zidane, np.ascontiguousarray(np.rot90(bus)), zidane[:, ::-1].copy()]
    together = detector.detect(pictures)
    for picture, found in zip(pictures, together, strict=True):
        _close(found, detector.detect([picture])[0], pixels=0.1)


def test_tensors_are_as_arrays(detector: YoloPersonDetector, bus: Image) -> None:
    # The two scalings differ by a grey level here and there, which int8 can make a step of. At
    # 320 pixels one of the input is 3.4 of this picture's.
    found = (detector.detect([picture])[0] for picture in (torch.from_numpy(bus), bus))
    if detector.precision == "int8":
        _close(*found, pixels=12, scores=0.06)
    else:
        _close(*found)


def test_nobody(detector: YoloPersonDetector) -> None:
    assert detector.detect([]) == []
    for found in detector.detect(
        [np.zeros((40, 700, 3), np.uint8), np.full((1, 1, 3), 9, np.uint8)]
    ):
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        torch.zeros(3, 10, 10, dtype=torch.uint8),
        torch.zeros(10, 10, 3),
    ],
)
def test_what_is_no_image_is_refused(detector: YoloPersonDetector, image: Image) -> None:
    good = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(ValueError, match=r"images\[1\]: expected a uint8 .*\(height, width, 3\)"):
        detector.detect([good, image])


def test_arrays_and_tensors_do_not_mix(detector: YoloPersonDetector) -> None:
    good = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(ValueError, match="got both"):
        detector.detect([good, torch.from_numpy(good)])


def test_limits(cache: Path, bus: Image) -> None:
    def find(**settings: float) -> Detections:
        return load_detector(
            device="cpu", backend="openvino", cache_folder=cache, input_size=320, **settings
        ).detect([bus])[0]

    everyone = find()
    assert len(find(max_people=1)) == 1
    assert find(max_people=1).scores[0] == everyone.scores[0]
    floor = float(everyone.scores[:2].mean())
    assert len(find(min_score=floor)) == 1
    assert len(find(min_score=0.01, max_overlap=0.3)) < len(find(min_score=0.01, max_overlap=0.95))


def test_threads_never_see_each_others_results(
    detector: YoloPersonDetector, bus: Image, zidane: Image
) -> None:
    """Inputs of different shapes at the same time, as they break a head that keeps its grid."""
    pictures = [bus, zidane, np.ascontiguousarray(bus[300:, :400]), zidane[:, 600:].copy()]
    alone = [detector.detect([picture])[0] for picture in pictures]
    assert len({tuple(map(len, [one])) + tuple(one.scores) for one in alone}) == len(pictures)
    start = threading.Barrier(len(pictures))

    def work(index: int) -> list[Detections]:
        start.wait(300)
        return [detector.detect([pictures[index]])[0] for _ in range(6)]

    with ThreadPoolExecutor(len(pictures)) as pool:
        for index, rounds in enumerate(pool.map(work, range(len(pictures)))):
            for found in rounds:
                _close(found, alone[index], pixels=0.1)


def test_end_to_end_head_runs_on_both_backends(tmp_path: Path) -> None:
    model = random_model("yolo26n", {0: "person"}, seed=3)
    model.end2end = True
    for level in model.model[-1].one2one_cv3:
        torch.nn.init.constant_(level[-1].bias, 0.0)  # scores about a half, so that there are some
    path = save_pt(model, tmp_path / "e2e.pt")
    image = np.random.default_rng(0).integers(0, 256, (70, 128, 3), dtype=np.uint8)
    found = []
    for backend in ("torch", "openvino"):
        detector = load_detector(
            path,
            device="cpu",
            backend=backend,
            precision="fp32",
            cache_folder=tmp_path,
            input_size=128,
            min_score=0.4,
            max_people=1000,
            # Would leave a handful if it were applied; such a head needs no suppression.
            max_overlap=0.01,
        )
        found.append(detector.detect([image])[0])
    assert len(found[0]) > 50
    assert len(found[0]) == len(found[1])
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-3)


def test_converted_model_is_kept_and_a_damaged_one_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_pt(random_model("yolov8n", {0: "person"}), tmp_path / "d.pt")
    folder = tmp_path / "cache"
    built = []
    convert = openvino_ir.convert

    def counting(network: PersonNetwork) -> object:
        built.append(network)
        return convert(network)

    monkeypatch.setattr(openvino_ir, "convert", counting)

    def load() -> int:
        load_detector(path, device="cpu", backend="openvino", cache_folder=folder)
        return len(built)

    assert [load(), load()] == [1, 1]
    [kept] = folder.iterdir()
    kept.write_text("<net")
    assert [load(), load()] == [2, 2]
