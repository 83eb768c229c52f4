"""Detectors of the user's own code, and what they may not answer."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from sdpose_core import PoseEstimator
from sdpose_core.detector import DetectorError, load_detector
from sdpose_core.detector.weights import find_detector

MODULE = """
import numpy as np
from types import SimpleNamespace
from sdpose_core.types import Detections

ANSWER = [[[0, 0, 4, 8]], [0.9]]

class Mine:
    name = "mine"
    def detect(self, images):
        boxes, scores = ANSWER
        return [SimpleNamespace(boxes=boxes, scores=scores) for _ in images]

class Short(Mine):
    def detect(self, images):
        return []

class Failing(Mine):
    def detect(self, images):
        raise KeyError("lost")

class Foreign(Mine):
    def detect(self, images):
        return [[0, 0, 4, 8] for _ in images]

def broken():
    raise OSError("no weights")

def nothing():
    return {}

number = 3
"""
IMAGE = np.zeros((20, 30, 3), np.uint8)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module of its own for each test."""
    name = f"own_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def answering(module: str, monkeypatch: pytest.MonkeyPatch, boxes: object, scores: object) -> None:
    monkeypatch.setattr(f"{module}.ANSWER", [boxes, scores])


def test_factory(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = load_detector(f"{module}:Mine")
    assert (detector.name, detector.backend) == ("mine", "factory")
    [found, _] = detector.detect([IMAGE, IMAGE])
    np.testing.assert_array_equal(found.boxes, [[0, 0, 4, 8]])
    answering(module, monkeypatch, [[5, 5, 8, 9], [-4, 2, 99, 9], [90, 0, 99, 9]], [0.2, 1, 0.5])
    [found] = detector.detect([IMAGE])
    np.testing.assert_array_equal(found.boxes, [[0, 2, 30, 9], [5, 5, 8, 9]])
    answering(module, monkeypatch, np.zeros((0, 4)), [])
    assert len(detector.detect([IMAGE])[0]) == 0


def test_estimator_with_a_factory(module: str, tmp_path: Path) -> None:
    spec = f"{module}:Mine"
    estimator = PoseEstimator.from_pretrained(detector=spec, device="cpu")
    [poses] = estimator.estimate([IMAGE], min_score=0)
    assert len(poses) == 1
    assert pickle.loads(pickle.dumps(estimator)).detector_name == "mine"
    assert find_detector(spec).path == tmp_path / f"{module}.py"


@pytest.mark.parametrize(
    ("boxes", "scores", "complaint"),
    [
        ([[0, 0, 4]], [0.5], r"detect gave \(1, 3\) and \(1,\)"),
        ([[0, 0, 4, 8]], [0.5, 0.4], r"detect gave \(1, 4\) and \(2,\)"),
        ([], [], r"detect gave \(0,\) and \(0,\)"),
        ([[0, 0, 4, float("nan")]], [0.5], "not finite"),
        ([[0, 0, 4, 8]], [float("inf")], "not finite"),
        ([[0, 0, 4, 8]], [1.5], r"a score outside 0\.\.1"),
        ([[0, 0, 4, 8]], [-0.1], r"a score outside 0\.\.1"),
        ([[9, 9, 4, 8]], [0.5], "without area"),
        ("boxes", [0.5], "instead of Detections"),
    ],
)
def test_rubbish(
    module: str, monkeypatch: pytest.MonkeyPatch, boxes: object, scores: object, complaint: str
) -> None:
    detector = load_detector(f"{module}:Mine")
    answering(module, monkeypatch, boxes, scores)
    with pytest.raises(DetectorError, match=rf"^{module}:Mine: .*{complaint}"):
        detector.detect([IMAGE])


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        ("Short", "detect gave 0 results for 1 images"),
        ("Failing", "detect failed: KeyError: 'lost'"),
        ("Foreign", "detect gave list instead of Detections"),
    ],
)
def test_detect_that_fails(module: str, factory: str, complaint: str) -> None:
    with pytest.raises(DetectorError, match=rf"^{module}:{factory}: {complaint}"):
        load_detector(f"{module}:{factory}").detect([IMAGE])


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        ("broken", "the factory failed: OSError: no weights"),
        ("nothing", "the factory returned dict, which does not fit PersonDetector"),
        ("number", "has no function 'number'"),
        ("missing", "has no function 'missing'"),
    ],
)
def test_factory_that_cannot_be_used(module: str, factory: str, complaint: str) -> None:
    with pytest.raises(DetectorError, match=rf"^{module}:{factory}: .*{complaint}"):
        load_detector(f"{module}:{factory}")


def test_module_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_wrong.py").write_text("1 / 0\n")
    with pytest.raises(DetectorError, match=r"importing own_wrong failed: ZeroDivisionError"):
        load_detector("own_wrong:make")
    with pytest.raises(DetectorError, match=r"no module 'own_absent' on Python's path"):
        load_detector("own_absent.part:make")
    with pytest.raises(DetectorError, match=r"no module 'own_absent\.part'"):
        find_detector("own_absent.part:make")


def test_classes_are_for_files(module: str) -> None:
    with pytest.raises(DetectorError, match="a factory has its own"):
        load_detector(f"{module}:Mine", classes="dog")
