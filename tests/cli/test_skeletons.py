"""A student with 26 keypoints through everything that shows, writes or measures keypoints."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
from ultralytics.utils import ASSETS

from sdpose_client import StreamAsk, StreamFrame
from sdpose_core import PoseEstimator
from sdpose_core.checkpoints import load_student, save_student
from sdpose_core.io.overlay import draw_poses
from sdpose_core.io.results.formats import SUFFIXES
from sdpose_core.skeleton import COCO17, Skeleton, find_skeleton
from sdpose_core.train.transfer import with_skeleton
from sdpose_core.types import Poses
from sdpose_core.vision.inputs import as_image
from tests.cli.conftest import Done
from tests.service.conftest import serving

HALPE = find_skeleton("halpe26")
BUS = ASSETS / "bus.jpg"
Sdpose = Callable[..., Done]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student that ships, with the joints of Halpe; those that COCO lacks are untrained."""
    path = tmp_path_factory.mktemp("student") / "halpe.safetensors"
    made, carried = with_skeleton(load_student("sdpose-lite"), HALPE)
    assert carried == list(COCO17.keypoints)
    save_student(made, path, dtype=None)
    return path


@pytest.fixture(scope="module")
def estimator(student: Path) -> PoseEstimator:
    return PoseEstimator.from_pretrained(student, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def poses(estimator: PoseEstimator) -> Poses:
    return estimator.estimate([BUS])[0]


def test_joints_of_the_same_name_are_where_they_were(
    poses: Poses, estimator: PoseEstimator
) -> None:
    assert poses.skeleton == HALPE
    assert poses.keypoints.shape == (len(poses), 26, 2)
    shipped = PoseEstimator.from_pretrained(device="cpu", precision="fp32")
    boxes = [poses.boxes]
    [new], [old] = estimator.estimate([BUS], boxes), shipped.estimate([BUS], boxes)
    np.testing.assert_allclose(new.keypoints[:, :17], old.keypoints, atol=0.05)
    [flipped] = estimator.estimate([BUS], boxes, flip_test=True)
    assert flipped.keypoints.shape == new.keypoints.shape


def test_a_drawing_has_its_limbs(poses: Poses) -> None:
    image = as_image(BUS, "image")
    drawn = draw_poses(image, poses, min_keypoint_score=0)
    person, neck, hip = poses.keypoints[0], 18, 19
    middle = ((person[neck] + person[hip]) / 2).astype(int)
    assert (neck, hip) in HALPE.edges
    assert not np.array_equal(drawn[middle[1], middle[0]], image[middle[1], middle[0]])


def test_files_name_its_joints(sdpose: Sdpose, student: Path, tmp_path: Path) -> None:
    names = [tmp_path / f"out{suffix}" for suffix in SUFFIXES]
    outputs = (word for name in names for word in ("--output", name))
    done = sdpose("predict", BUS, "--student", student, *outputs)
    assert done.returncode == 0, done.stderr
    [line] = (tmp_path / "out.jsonl").read_text().splitlines()
    people = json.loads(line)["people"]
    assert [point["name"] for point in people[0]["keypoints"]] == list(HALPE.keypoints)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["left_heel_x"]) == people[0]["keypoints"][24]["x"]
    coco = json.loads((tmp_path / "out.json").read_text())
    assert coco["categories"][0]["keypoints"] == list(HALPE.keypoints)
    assert coco["categories"][0]["skeleton"] == [[a + 1, b + 1] for a, b in HALPE.edges]
    assert len(coco["annotations"][0]["keypoints"]) == 78
    table = pq.read_table(tmp_path / "out.parquet")
    assert json.loads(table.schema.metadata[b"sdpose.keypoints"]) == list(HALPE.keypoints)
    assert len(table["people"][0].as_py()[0]["keypoints"]) == 26


def test_evaluation_is_by_its_own_tolerances(
    sdpose: Sdpose, student: Path, poses: Poses, tmp_path: Path
) -> None:
    (tmp_path / "images").symlink_to(ASSETS)
    boxes = np.concatenate([poses.boxes[:, :2], poses.boxes[:, 2:] - poses.boxes[:, :2]], axis=1)
    flags = np.full((len(poses), 26, 1), 2.0)
    labels = np.concatenate([poses.keypoints, flags], axis=2).reshape(len(poses), -1).tolist()
    content = {
        "images": [{"id": 1, "file_name": "bus.jpg", "width": 810, "height": 1080}],
        "annotations": [
            {
                "id": n + 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": box.tolist(),
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
                "num_keypoints": 26,
                "keypoints": points,
            }
            for n, (box, points) in enumerate(zip(boxes, labels, strict=True))
        ],
        "categories": [
            {"id": 1, "name": "person", "keypoints": list(HALPE.keypoints), "skeleton": []}
        ],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    command = ("evaluate", path, tmp_path / "images", "--student", student, "--no-flip")
    done = sdpose(*command, "--precision", "fp32", "--output", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    [result] = json.loads((tmp_path / "result.json").read_text())
    assert result["coco"]["AP"] == pytest.approx(1.0, abs=0.01)
    assert list(result["joints"]) == list(HALPE.keypoints)
    assert "default tolerance" not in done.stdout
    unknown = Skeleton.make("mine", HALPE.keypoints)
    made, _ = with_skeleton(load_student("sdpose-lite"), unknown)
    save_student(made, tmp_path / "mine.safetensors")
    assumed = sdpose(*command[:3], "--student", tmp_path / "mine.safetensors", "--no-flip")
    told = " ".join(assumed.stdout.split())
    assert "default tolerance 0.079, as none was given, for: head, neck, hip, left_big_toe" in told
    other = sdpose(*command[:3], "--student", "sdpose-lite")
    assert other.returncode == 2
    assert "'head', is none of coco17's" in other.stderr.replace("\n", " ")


def test_an_exported_network_gives_its_coordinates(
    sdpose: Sdpose, student: Path, tmp_path: Path
) -> None:
    path = tmp_path / "halpe.onnx"
    done = sdpose("export", "--student", student, "--output", path, "--keypoints")
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes = {one.name: one.shape[1:] for one in session.get_outputs()}
    assert shapes == {"keypoints": [26, 2], "scores": [26]}
    facts = json.loads(session.get_modelmeta().custom_metadata_map["sdpose"])
    assert facts["keypoint_names"] == list(HALPE.keypoints)


@pytest.mark.anyio
async def test_every_protocol_answers_its_joints(estimator: PoseEstimator, poses: Poses) -> None:
    async def frames() -> AsyncIterator[StreamFrame]:
        for number in range(1, 4):
            yield StreamFrame(BUS.read_bytes(), number, number / 30)

    async with serving(estimator) as service:
        models = (await service.http.get("/models")).json()
        assert models["keypoints"] == list(HALPE.keypoints)
        assert models["skeleton"] == [list(edge) for edge in HALPE.edges]
        for client in (service.rest, service.grpc):
            answer = await client.estimate(BUS.read_bytes())
            names = [point.name for point in answer.people[0].keypoints]
            assert names == list(HALPE.keypoints)
        assert len(answer.people) == len(poses)
        answers = [
            one async for one in service.grpc.stream(frames(), stream=StreamAsk(drop="none"))
        ]
        assert answers[-1].outcome.people[0].id == 1
        assert len(answers[-1].outcome.people[0].keypoints) == 26
        drawn = await service.http.post("/pose/overlay", files={"image": BUS.read_bytes()})
        assert drawn.headers["content-type"] == "image/jpeg"
