"""The library's front door: its public names, their page, and the conversions of poses."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sdpose_core
from sdpose_core import PoseEstimator, Poses
from sdpose_core.skeleton import COCO17

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
COMES = "comes with `make test-all`"


def poses(people: int = 2) -> Poses:
    rng = np.random.default_rng(0)
    points = rng.uniform(10, 90, (people, 17, 2)).astype(np.float32)
    scores = np.linspace(0, 1, people * 17, dtype=np.float32).reshape(people, 17)
    boxes = np.tile(np.array([[10, 20, 40, 80.5]], np.float32), (people, 1))
    ids = np.array([7, 0, 9][:people])
    many = np.full(people, 0.75, np.float32)
    return Poses(points, scores, boxes, many, ids, visibility=(1 + scores) / 2)


def test_the_public_names_show_and_load_nothing() -> None:
    code = "import sys, sdpose_core; print(*dir(sdpose_core)); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(sdpose_core.__all__)
    assert "PoseEstimator" in sdpose_core.__all__
    for name in sdpose_core.__all__:
        assert getattr(sdpose_core, name).__name__ == name
        assert name in (sdpose_core.__doc__ or "")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        sdpose_core.Nothing  # noqa: B018


def test_the_page_names_all_that_is_public() -> None:
    code = re.findall(r"```python\n(.*?)```|`([^`\n]+)`", PAGE.read_text(), re.DOTALL)
    words = {word for part in code for word in re.findall(r"\w+", "".join(part))}
    methods = {name for name, _ in inspect.getmembers(Poses, callable) if not name.startswith("_")}
    fields = set(Poses.__slots__)
    options = {
        name
        for function in (PoseEstimator.from_pretrained, PoseEstimator.estimate)
        for name in inspect.signature(function).parameters
    } - {"self"}
    missing = ({*sdpose_core.__all__} | methods | fields | options) - words
    assert not missing


def test_numpy_and_back() -> None:
    given = poses()
    joints = given.to_numpy()
    assert (joints.shape, joints.dtype) == ((2, 17, 3), np.float32)
    again = Poses.from_numpy(joints.tolist(), given.boxes, given.scores)
    for name in ("keypoints", "keypoint_scores", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(given, name))
    alone = Poses.from_numpy(joints)
    np.testing.assert_array_equal(alone.boxes[1, :2], given.keypoints[1].min(axis=0))
    np.testing.assert_array_equal(alone.boxes[1, 2:], given.keypoints[1].max(axis=0))
    np.testing.assert_allclose(alone.scores, given.keypoint_scores.mean(axis=1))
    assert len(Poses.from_numpy(np.zeros((0, 17, 3)))) == 0
    joints[0, 0, 0] += 1
    assert again.keypoints[0, 0, 0] == given.keypoints[0, 0, 0]  # a copy


@pytest.mark.parametrize(
    ("joints", "boxes", "scores", "message"),
    [
        (
            np.ones((2, 17, 2)),
            None,
            None,
            r"joints: expected shape \('N', 17, 3\), got \(2, 17, 2\)",
        ),
        (np.ones((2, 17, 3)), None, None, "box 0 has no area"),
        (np.ones((2, 17, 3)), [[0, 0, 9, 9]], None, r"keypoints: expected shape \(1, 17, 2\)"),
        (np.ones((1, 17, 3)), [[0, 0, 9, 9]], [[1.0]], r"scores: expected shape \(1,\)"),
    ],
)
def test_arrays_that_are_no_poses(
    joints: object, boxes: object, scores: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Poses.from_numpy(joints, boxes, scores)  # type: ignore[arg-type]


def test_rows() -> None:
    rows = poses().to_rows()
    assert len(rows) == 34
    assert rows[17 + 16] == {
        "person": 1,
        "id": None,
        "person_score": 0.75,
        "name": "right_ankle",
        "x": pytest.approx(float(poses().keypoints[1, 16, 0]), abs=1e-3),
        "y": pytest.approx(float(poses().keypoints[1, 16, 1]), abs=1e-3),
        "score": 1.0,
        "visibility": 1.0,
    }
    assert rows[0]["id"] == 7
    assert "visibility" not in replace(poses(), visibility=None).to_rows()[0]
    assert Poses.empty().to_rows() == []
    assert poses().to_dicts(0.9)[0]["keypoints"] == []


def test_coco_annotations_are_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    annotations = poses().to_coco(image_id=139, first_id=5)
    assert [(one["id"], one["image_id"]) for one in annotations] == [(5, 139), (6, 139)]
    assert [one.get("track_id") for one in annotations] == [7, None]
    assert annotations[0]["bbox"] == [10, 20, 30, 60.5]
    assert annotations[1]["keypoints"][2::3] == [2] * 17
    assert annotations[0]["keypoints"][2::3] == [0] * 10 + [2] * 7  # from a score of 0.3
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}
    truth = {"images": [{"id": 139}], "annotations": annotations, "categories": [category]}
    (tmp_path / "c.json").write_text(json.dumps(truth))
    coco = COCO(str(tmp_path / "c.json"))
    assert len(coco.loadRes(json.loads(json.dumps(annotations))).anns) == 2
    capsys.readouterr()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    for convert in (Poses.to_supervision, Poses.to_supervision_detections):
        with pytest.raises(ModuleNotFoundError, match="pip install 'supervision"):
            convert(poses())


@pytest.mark.slow(COMES)
def test_supervision() -> None:
    sv = pytest.importorskip("supervision", reason=COMES)
    given = poses()
    points = given.to_supervision()
    assert isinstance(points, sv.KeyPoints)
    np.testing.assert_array_equal(points.xy, given.keypoints)
    np.testing.assert_array_equal(points.keypoint_confidence, given.keypoint_scores)
    np.testing.assert_array_equal(points.visible, given.keypoint_scores >= 0.3)
    np.testing.assert_array_equal(points[1].data["visibility"][0], given.visibility[1])
    boxes = given.to_supervision_detections()
    assert isinstance(boxes, sv.Detections)
    np.testing.assert_array_equal(boxes.xyxy, given.boxes)
    assert boxes.tracker_id.tolist() == [7, 0]
    assert (
        len(Poses.empty().to_supervision()) == len(Poses.empty().to_supervision_detections()) == 0
    )


@pytest.mark.slow(COMES)
def test_data_frames() -> None:
    pandas = pytest.importorskip("pandas", reason=COMES)
    polars = pytest.importorskip("polars", reason=COMES)
    rows = poses().to_rows()
    for table in (pandas.DataFrame(rows), polars.DataFrame(rows)):
        assert table.shape == (34, 8)
        assert table["visibility"].mean() == pytest.approx(0.75, abs=1e-3)
