"""The three formats of results."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np

from sdpose_core.io.writers import WRITERS, Record
from sdpose_core.skeleton import COCO17
from sdpose_core.types import Poses


def _poses(people: int) -> Poses:
    points = np.arange(people * 34, dtype=np.float32).reshape(people, 17, 2) + np.float32(1 / 3)
    scores = np.linspace(0, 1, people * 17, dtype=np.float32).reshape(people, 17)
    boxes = np.tile(np.array([[10, 20, 40, 80.5]], np.float32), (people, 1))
    return Poses(points, scores, boxes, np.full(people, 0.87654321, np.float32))


RECORDS = (
    Record("dir/a,b.jpg", 640, 480, _poses(2)),
    Record("empty.jpg", 64, 48, Poses.empty()),
    Record("v.mp4", 320, 240, _poses(1), frame=7, time_s=0.28),
)


def _written(kind: str, *records: Record) -> list[str]:
    text: list[str] = []
    writer = WRITERS[kind](text.append, COCO17)
    for record in records:
        writer.write(record)
    writer.finish()
    return text


def test_json_lines() -> None:
    lines = _written("jsonl", *RECORDS)
    assert len(lines) == 3
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    first, second, third = (json.loads(line) for line in lines)
    assert first["input"] == "dir/a,b.jpg"
    assert first["image"] == {"width": 640, "height": 480}
    assert "frame" not in first
    person = first["people"][0]
    assert person["box"] == {"x": 10, "y": 20, "width": 30, "height": 60.5}
    assert person["score"] == 0.8765
    assert [point["name"] for point in person["keypoints"]] == list(COCO17.keypoints)
    assert person["keypoints"][1]["x"] == 2.333
    assert second["people"] == []
    assert (third["frame"], third["time_s"]) == (7, 0.28)


def test_csv_has_a_row_a_person() -> None:
    rows = list(csv.DictReader(io.StringIO("".join(_written("csv", *RECORDS)))))
    assert [(row["input"], row["frame"], row["person"]) for row in rows] == [
        ("dir/a,b.jpg", "", "0"),
        ("dir/a,b.jpg", "", "1"),
        ("v.mp4", "7", "0"),
    ]
    assert float(rows[0]["y2"]) == 80.5
    assert float(rows[1]["right_ankle_x"]) == 66.333
    assert float(rows[1]["right_ankle_score"]) == 1
    assert len(rows[0]) == 10 + 4 * 17
    assert rows[0]["nose_visibility"] == ""  # of a student without a score head


def _coco(*records: Record) -> dict[str, Any]:
    (text,) = _written("coco", *records)
    document: dict[str, Any] = json.loads(text)
    return document


def test_coco_file_loads_and_scores_itself_perfectly(tmp_path: Any, capsys: Any) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    document = _coco(*RECORDS)
    (tmp_path / "c.json").write_text(json.dumps(document))
    truth = COCO(str(tmp_path / "c.json"))
    assert truth.cats[1]["keypoints"] == list(COCO17.keypoints)
    assert [16, 14] in truth.cats[1]["skeleton"]
    assert len(truth.imgs) == 3
    run = COCOeval(truth, truth.loadRes(document["annotations"]), "keypoints")
    run.evaluate()
    run.accumulate()
    run.summarize()
    capsys.readouterr()
    assert run.stats[0] > 0.99


def test_ids_over_time_in_every_format() -> None:
    tracked = Record("v.mp4", 64, 48, replace(_poses(2), ids=np.array([7, 0])), 3, 0.1)
    (line,) = _written("jsonl", tracked)
    assert [person.get("id") for person in json.loads(line)["people"]] == [7, None]
    text = "".join(_written("csv", tracked))
    assert [row["id"] for row in csv.DictReader(io.StringIO(text))] == ["7", ""]
    assert [one.get("track_id") for one in _coco(tracked)["annotations"]] == [7, None]


def test_visibility_in_every_format() -> None:
    poses = _poses(2)
    seen = Record("a.jpg", 64, 48, replace(poses, visibility=1 - poses.keypoint_scores / 4))
    (line,) = _written("jsonl", seen)
    point = {"name": "right_ankle", "x": 66.333, "y": 67.333, "score": 1.0, "visibility": 0.75}
    assert json.loads(line)["people"][1]["keypoints"][-1] == point
    (bare,) = _written("jsonl", RECORDS[0])
    assert "visibility" not in bare
    _, row = csv.DictReader(io.StringIO("".join(_written("csv", seen))))
    assert (row["right_ankle_score"], row["right_ankle_visibility"]) == ("1.0", "0.75")
    assert _coco(seen)["annotations"][1]["visibility"][-1] == 0.75
    assert "visibility" not in _coco(RECORDS[0])["annotations"][0]
    assert not replace(poses, visibility=poses.keypoint_scores * np.float32("nan")).finite


def test_coco_values() -> None:
    annotation = _coco(RECORDS[0])["annotations"][0]
    assert annotation["bbox"] == [10, 20, 30, 60.5]
    assert annotation["area"] == 30 * 60.5
    assert annotation["num_keypoints"] == 17
    assert annotation["keypoints"][:3] == [0.333, 1.333, 1]
    assert annotation["keypoints"][-1] == 2
    assert len(annotation["keypoint_scores"]) == 17


def test_coco_keeps_numbers_that_are_names() -> None:
    names = ["000000000139.jpg", "b.jpg", "1.jpg", "x/139.png", "0.jpg"]
    document = _coco(*(Record(name, 9, 9, Poses.empty()) for name in names))
    numbers = [image["id"] for image in document["images"]]
    assert numbers[0] == 139
    assert len(set(numbers)) == len(names)
    assert min(numbers) >= 1
    assert numbers[2] == 1  # though another image was there before it
    document = _coco(replace(RECORDS[0], source="a.jpg"), replace(RECORDS[0], source="1.jpg"))
    assert [image["id"] for image in document["images"]] == [2, 1]
    people = len(document["annotations"]) // 2
    assert [one["image_id"] for one in document["annotations"]] == [2] * people + [1] * people
