"""Labels as label tools write them, and what is found in them before training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sdpose_core.data.coco_file import read_coco
from sdpose_core.skeleton import COCO17, find_skeleton
from sdpose_core.train.tuning.labels import Labels, read_labels, write_coco
from sdpose_core.train.tuning.plan import hold_out
from sdpose_core.train.tuning.survey import survey
from tests.train.people import changing, coco_folder


def yolo_folder(folder: Path, numbers: int = 3, **about: Any) -> Path:
    """Two images with one person of three keypoints, the second for validation; ``data.yaml``."""
    for part in ("train", "val"):
        (folder / "images" / part).mkdir(parents=True)
        (folder / "labels" / part).mkdir(parents=True)
        cv2.imwrite(
            str(folder / "images" / part / f"{part}.png"), np.zeros((200, 100, 3), np.uint8)
        )
        points = [(0.5, 0.25, 2), (0.25, 0.5, 1), (0.0, 0.0, 0)]
        row = [0, 0.5, 0.5, 0.8, 0.6] + [value for point in points for value in point[:numbers]]
        text = " ".join(str(value) for value in row) + "\n\n"
        (folder / "labels" / part / f"{part}.txt").write_text(text)
    (folder / "images" / "train" / "nobody.png").write_bytes(
        (folder / "images" / "train" / "train.png").read_bytes()
    )
    content = {
        "path": "/where/it/was/made",
        "train": "images/train",
        "val": "images/val",
        "kpt_shape": [3, numbers],
        "flip_idx": [0, 2, 1],
        "kpt_names": {0: ["nose", "left_paw", "right_paw"]},
        **about,
    }
    path = folder / "data.yaml"
    path.write_text("\n".join(f"{k}: {json.dumps(v)}" for k, v in content.items() if v is not None))
    return path


@pytest.mark.parametrize("numbers", [2, 3])
def test_yolo_pose_labels_in_pixels_with_their_own_split(tmp_path: Path, numbers: int) -> None:
    path = yolo_folder(tmp_path / "dogs", numbers)
    labels = read_labels(path.parent, None)
    assert labels.file.skeleton.keypoints == ("nose", "left_paw", "right_paw")
    assert labels.file.skeleton.mirror == (0, 2, 1)
    first, second = labels.file.people
    assert first["bbox"] == pytest.approx([10, 40, 80, 120])
    flag = 1 if numbers == 3 else 2
    assert first["keypoints"] == [50, 50, 2, 25, 100, flag, 0, 0, 0]
    assert second["said_id"] == "val.txt:1"
    found = survey(labels)
    assert (found.total, found.labelled) == (2, [2, 2, 0])
    assert found.odd["images without people to train on"] == ["images/train/nobody.png"]
    assert any("never labelled, so not learned: right_paw" in line for line in found.lines())
    trained, held = hold_out(labels, found)
    named = {one["id"]: one["file_name"] for one in labels.file.images}
    assert [named[one] for one in held] == ["images/val/val.png"]
    assert [named[one] for one in trained] == ["images/train/train.png"]


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"kpt_names": None}, "no kpt_names for 3 keypoints: add them, or give --skeleton"),
        ({"kpt_shape": [4, 3]}, r"line 1: 14 numbers, expected 17: class, box and 4 keypoints"),
        ({"kpt_shape": None}, "no kpt_shape; expected the data.yaml of YOLO pose labels"),
        ({"kpt_shape": 3}, "kpt_shape 3: expected two numbers"),
        ({"flip_idx": [0, 1, 1]}, "flip_idx: expected each of 0 to 2 once"),
        ({"kpt_names": ["a", "a", "b"]}, "the keypoint 'a' comes twice"),
        ({"val": "images/test"}, "images/test: no such folder of images"),
    ],
)
def test_yolo_labels_that_cannot_be_read_are_named(
    tmp_path: Path, about: dict[str, Any], reason: str
) -> None:
    names = {"kpt_names": {0: ["a", "b", "c", "d"]}} if about.get("kpt_shape") == [4, 3] else {}
    path = yolo_folder(tmp_path, **{**names, "flip_idx": None, **about})
    with pytest.raises(ValueError, match=reason):
        read_labels(path, None)


def test_a_skeleton_names_the_keypoints_of_yolo_labels(tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, kpt_names=None, flip_idx=None)
    (tmp_path / "three.toml").write_text('keypoints = ["a", "left_b", "right_b"]')
    labels = read_labels(path, None, find_skeleton(tmp_path / "three.toml"))
    assert labels.file.skeleton.mirror == (0, 2, 1)
    with pytest.raises(ValueError, match="3 keypoints, but coco17 has 17"):
        read_labels(path, None, COCO17)


def label_studio(content: dict[str, Any]) -> None:
    """As Label Studio writes it: boxes as one category, keypoints as another whose boxes end at
    them, and the paths that images had with it."""
    names = list(COCO17.keypoints)
    content["categories"] = [
        {"id": 0, "name": "person"},
        {"id": 1, "name": "default", "keypoints": names, "skeleton": []},
    ]
    boxes = []
    for person in content["annotations"]:
        boxes.append({**person, "id": person["id"] + 1000, "category_id": 0})
        del boxes[-1]["keypoints"], person["area"]
        joints = np.array(person["keypoints"]).reshape(17, 3)
        shown = joints[joints[:, 2] > 0, :2]
        low, high = shown.min(axis=0), shown.max(axis=0)
        person["category_id"], person["bbox"] = 1, [*low, *(high - low)]
    content["annotations"] += boxes
    for image in content["images"]:
        image["file_name"] = "..\\media\\upload\\" + image["file_name"]


def test_label_studio_files(tmp_path: Path) -> None:
    path, images = coco_folder(tmp_path, images=2)
    before = read_coco(path).people
    with changing(path) as content:
        label_studio(content)
    labels = read_labels(path, images)
    assert [one["keypoints"] for one in labels.file.people] == [one["keypoints"] for one in before]
    assert [one["file_name"] for one in labels.file.images] == [
        "000000000001.png", "000000000002.png"
    ]  # fmt: skip
    assert len(labels.grown) == 4
    joints = np.array(labels.file.people[0]["keypoints"]).reshape(17, 3)
    shown = joints[joints[:, 2] > 0, :2]
    x, y, _, height = labels.file.people[0]["bbox"]
    assert x < shown[:, 0].min() - 5
    assert y + height > shown[:, 1].max() + 5
    assert "boxes that end at their keypoints, grown by an eighth" in survey(labels).odd


def odd_labels(content: dict[str, Any]) -> None:
    """One of each oddity."""
    first, second, third, fourth, fifth, sixth = content["annotations"][:6]
    first["keypoints"][:3] = [500.0, 20.0, 2]  # the image is 420 wide
    second["keypoints"][3:6] = [30.0, 30.0, 0]
    third["bbox"] = [0, 0, 0, 0]
    fourth["keypoints"][6:9] = [30.0, 30.0, 3]
    del fourth["area"]
    fifth["iscrowd"] = 1
    sixth["keypoints"] = [0] * 51
    content["images"].append({**content["images"][0], "id": 77, "file_name": "gone.png"})


def test_all_that_is_odd_is_counted_and_named(tmp_path: Path) -> None:
    path, images = coco_folder(tmp_path)
    with changing(path) as content:
        odd_labels(content)
    found = survey(read_labels(path, images))
    assert found.total == 6
    assert found.left_out == {
        "in a crowd": ["annotation 30 (000000000003.png)"],
        "without a labelled joint": ["annotation 31 (000000000003.png)"],
        "labelled images that are not in the folder": ["gone.png"],
    }
    odd = found.odd
    [outside] = odd["keypoints outside their image"]
    assert outside == "annotation 10 (000000000001.png), nose at (500, 20) of 420x300"
    assert (
        "annotation 11 (000000000001.png), left_eye"
        in (odd["keypoints with a place but flag 0, so not labelled"])
    )
    assert odd["boxes without area, that of the keypoints taken"] == [
        "annotation 20 (000000000002.png)"
    ]
    assert odd["people without an area, that of the box taken"] == [
        "annotation 21 (000000000002.png)"
    ]
    assert odd["flags other than 0, 1 and 2"] == ["annotation 21 (000000000002.png), right_eye: 3"]
    assert odd["images without people to train on"] == ["000000000003.png"]
    short = "\n".join(found.lines())
    assert "left out: 1 in a crowd: annotation 30 (000000000003.png)" in short


def test_a_written_part_reads_as_it_was(tmp_path: Path) -> None:
    path, images = coco_folder(tmp_path)
    file = read_labels(path, images).file
    write_coco(file, tmp_path / "part.json", {2, 3})
    again = read_coco(tmp_path / "part.json")
    assert [one["id"] for one in again.images] == [2, 3]
    kept = [one for one in file.people if one["image_id"] in (2, 3)]
    same = ("image_id", "bbox", "area", "keypoints", "num_keypoints")
    assert [[one[k] for k in same] for one in again.people] == [
        [one[k] for k in same] for one in kept
    ]


def test_images_are_held_out_whole_and_the_same_each_time(tmp_path: Path) -> None:
    path, images = coco_folder(tmp_path, images=10)
    labels = read_labels(path, images)
    found = survey(labels)
    trained, held = hold_out(labels, found)
    assert (len(held), held & trained, held | trained) == (2, set(), set(range(1, 11)))
    assert hold_out(labels, found) == (trained, held)
    assert hold_out(labels, found, seed=1) != (trained, held)


Change = Callable[[Path, Path], tuple[Path, Path | None]]


def _one_image(path: Path, images: Path) -> tuple[Path, Path]:
    with changing(path) as content:
        del content["images"][1:]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 1]
    return path, images


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path, images: (path, None), "needs the folder of its images after it"),
        (lambda path, images: (path, path), "no such folder of images"),
        (lambda path, images: (path.with_name("x.json"), images), "x.json: no such file"),
        (lambda path, images: (path, path.parent), "none of its images is in"),
        (_one_image, "people in 1 images: at least 2 are needed"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_named(
    tmp_path: Path, change: Change, reason: str
) -> None:
    def use(labels: Labels) -> None:
        hold_out(labels, survey(labels))

    path, images = coco_folder(tmp_path)
    with pytest.raises(ValueError, match=reason):
        use(read_labels(*change(path, images)))
