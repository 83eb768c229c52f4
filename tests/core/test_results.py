"""The formats of results: what each holds, and that each is read again."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdpose_core.data.coco_file import read_coco
from sdpose_core.io.results.formats import SUFFIXES, format_of, open_results, open_writer
from sdpose_core.io.results.record import Record, Results, ResultsError
from sdpose_core.io.sources import Source
from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.skeleton.files import find_skeleton
from sdpose_core.types import Poses


def _poses(people: int, skeleton: Skeleton = COCO17) -> Poses:
    joints = len(skeleton)
    points = np.arange(people * joints * 2, dtype=np.float32).reshape(people, joints, 2)
    scores = np.linspace(0, 1, people * joints, dtype=np.float32).reshape(people, joints)
    boxes = np.tile(np.array([[10, 20, 40, 80.5]], np.float32), (people, 1))
    return Poses(
        points + np.float32(1 / 3),
        scores,
        boxes,
        np.full(people, 0.87654321, np.float32),
        skeleton=skeleton,
    )


def _seen(poses: Poses) -> Poses:
    """With visibility, as of a student with a score head."""
    return replace(poses, visibility=1 - poses.keypoint_scores / 4)


RECORDS = (
    Record("dir/a,b.jpg", 640, 480, _seen(_poses(2))),
    Record("empty.jpg", 64, 48, Poses.empty()),
    Record(
        "v.mp4", 320, 240, _seen(replace(_poses(2), ids=np.array([7, 0]))), frame=7, time_s=0.28
    ),
    Record("v.mp4", 320, 240, _poses(1), frame=8, time_s=0.32),
)


class _Memory:
    """A ``Target``."""

    def __init__(self) -> None:
        self.file: Any = io.BytesIO()
        self.lines: list[str] = []

    def put(self, text: str) -> None:
        self.file.write(text.encode())
        self.lines.append(text)


def _written(suffix: str, *records: Record, minimum: float = 0.3) -> _Memory:
    memory = _Memory()
    memory.file.close = lambda: None
    skeleton = records[0].poses.skeleton
    writer = open_writer(suffix, memory, skeleton, min_keypoint_score=minimum, made_with={})
    for record in records:
        writer.write(record)
    writer.finish()
    return memory


def _lines(suffix: str, *records: Record) -> list[str]:
    return _written(suffix, *records).lines


def test_json_lines() -> None:
    lines = _lines(".jsonl", *RECORDS)
    assert len(lines) == 4
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    first, second, third, _ = (json.loads(line) for line in lines)
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


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Of nested JSON objects the names joined by ``_``; joints by their own name."""
    if isinstance(value, list):
        return {k: v for one in value for k, v in _flat(one, one.pop("name")).items()}
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, key if key == "keypoints" else f"{name}_{key}".strip("_"))
    return flat


def test_csv_is_json_with_a_row_per_person() -> None:
    rows = list(csv.DictReader(io.StringIO("".join(_lines(".csv", *RECORDS)))))
    assert [(row["input"], row["frame"], row["person"], row["id"]) for row in rows] == [
        ("dir/a,b.jpg", "", "0", ""),
        ("dir/a,b.jpg", "", "1", ""),
        ("v.mp4", "7", "0", "7"),
        ("v.mp4", "7", "1", ""),
        ("v.mp4", "8", "0", ""),
    ]
    expected = []
    for line in map(json.loads, _lines(".jsonl", *RECORDS)):
        image = _flat({key: line[key] for key in line if key != "people"})
        expected += [image | _flat(person) for person in line["people"]]
    assert [name for name in rows[2] if name != "person"] == list(expected[2])
    for row, person in zip(rows, expected, strict=True):
        kept = {key: value for key, value in row.items() if value != "" and key != "person"}
        assert kept == {key: str(value) for key, value in person.items()}


def _coco(*records: Record, minimum: float = 0.3) -> dict[str, Any]:
    (text,) = _written(".json", *records, minimum=minimum).lines
    document: dict[str, Any] = json.loads(text)
    return document


def test_coco_file_loads_and_scores_itself_perfectly(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    document = _coco(*RECORDS)
    (tmp_path / "c.json").write_text(json.dumps(document))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "c.json"))
        run = COCOeval(truth, truth.loadRes(document["annotations"]), "keypoints")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert truth.cats[1]["keypoints"] == list(COCO17.keypoints)
    assert [16, 14] in truth.cats[1]["skeleton"]
    assert len(truth.imgs) == 4
    assert run.stats[0] > 0.99


@pytest.mark.parametrize("name", ["coco17", "hand21"])
def test_our_own_reader_of_labels_takes_a_coco_file_without_loss(name: str, tmp_path: Path) -> None:
    skeleton = find_skeleton(name)
    records = [
        Record("a.jpg", 640, 480, _poses(3, skeleton)),
        Record("v.mp4", 640, 480, _poses(2, skeleton), 0, 0.0),
        Record("v.mp4", 640, 480, Poses.empty(skeleton), 1, 0.1),
    ]
    document = _coco(*records)
    (tmp_path / "c.json").write_text(json.dumps(document))
    file = read_coco(tmp_path / "c.json", None)
    assert file.skeleton.keypoints == skeleton.keypoints
    assert list(file.images) == document["images"]
    names = [image["file_name"] for image in document["images"]]
    assert names == ["a.jpg", "v.mp4/000000.jpg", "v.mp4/000001.jpg"]
    assert document["videos"] == [{"id": 1, "name": "v.mp4"}]
    for person, annotation in zip(file.people, document["annotations"], strict=True):
        shared = set(person) & set(annotation)
        assert {"bbox", "area", "keypoints", "num_keypoints", "image_id"} <= shared
        assert {key: person[key] for key in shared} == {key: annotation[key] for key in shared}


def test_coco_labels_what_is_seen_in_the_image() -> None:
    annotation = _coco(RECORDS[0])["annotations"][0]
    assert annotation["bbox"] == [10, 20, 30, 60.5]
    assert annotation["area"] == 30 * 60.5
    assert annotation["keypoints"][:3] == [0.333, 1.333, 0], "a score of 0, and its place stays"
    scores = np.array(annotation["keypoint_scores"])
    assert len(scores) == 17
    assert annotation["keypoints"][2::3] == np.where(scores >= 0.3, 2, 0).tolist()
    assert annotation["num_keypoints"] == (scores >= 0.3).sum() < 17
    everything = _coco(RECORDS[0], minimum=0.0)["annotations"][0]
    assert everything["keypoints"][2::3] == [2] * 17

    poses = _poses(1)
    poses.keypoint_scores[:] = 1
    poses.keypoints[0, :5] = [(0, 0), (639, 479), (-0.01, 5), (5, 479.01), (639.01, 5)]
    (beyond,) = _coco(Record("a.jpg", 640, 480, poses))["annotations"]
    assert beyond["keypoints"][2::3] == [2, 2, 0, 0, 0] + [2] * 12
    assert beyond["num_keypoints"] == 14


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


# Read again ---------------------------------------------------------------------------------------


def _read(tmp_path: Path, suffix: str, memory: _Memory) -> Results:
    path = tmp_path / f"r{suffix}"
    path.write_bytes(memory.file.getvalue())
    return open_results(path)


@pytest.mark.parametrize("to", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_what_is_converted_is_what_would_have_been_written(
    source: str, to: str, tmp_path: Path
) -> None:
    # CSV has no rows of images without people.
    records = [one for one in RECORDS if len(one.poses) or ".csv" not in (source, to)]
    results = _read(tmp_path, source, _written(source, *records))
    found = [one for one in results.records if isinstance(one, Record)]
    assert results.skeleton == COCO17
    assert [(one.source, one.frame, one.time_s) for one in found] == [
        (one.source, one.frame, one.time_s) for one in records
    ]
    if to != ".parquet":
        assert _lines(to, *found) == _lines(to, *records)
        return
    again = _read(tmp_path, to, _written(to, *found))
    assert _lines(".jsonl", *(r for r in again.records if isinstance(r, Record))) == _lines(
        ".jsonl", *records
    )


def test_visibility_is_left_out_where_the_student_has_none(tmp_path: Path) -> None:
    seen, bare = RECORDS[0], RECORDS[3]
    joints = [
        json.loads(_lines(".jsonl", one)[0])["people"][0]["keypoints"][-1] for one in (seen, bare)
    ]
    assert joints[0]["visibility"] == round(1 - joints[0]["score"] / 4, 4)
    assert "visibility" not in joints[1]
    rows = list(csv.DictReader(io.StringIO("".join(_lines(".csv", bare)))))
    assert rows[0]["nose_visibility"] == ""
    assert len(_coco(seen)["annotations"][0]["visibility"]) == 17
    assert "visibility" not in _coco(bare)["annotations"][0]
    memory = _written(".parquet", seen, bare)
    first, second = _read(tmp_path, ".parquet", memory).records
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert first.poses.visibility is not None
    assert np.array_equal(first.poses.visibility, seen.poses.visibility)
    assert second.poses.visibility is None
    assert not replace(seen.poses, visibility=seen.poses.keypoint_scores * np.nan).finite


def test_parquet_keeps_every_number_and_who_failed(tmp_path: Path) -> None:
    memory = _Memory()
    memory.file.close = lambda: None
    writer = open_writer(".parquet", memory, COCO17, min_keypoint_score=0.3, made_with={})
    writer.write(replace(RECORDS[2], identity="file:///v.mp4"))
    writer.skip(Source(None, "bad.jpg", Path(), "file:///bad.jpg"), "no image")
    writer.finish()
    record, failure = _read(tmp_path, ".parquet", memory).records
    assert isinstance(record, Record)
    assert record.identity == "file:///v.mp4"
    for name in ("keypoints", "keypoint_scores", "visibility", "boxes", "scores", "ids"):
        assert (getattr(record.poses, name) == getattr(RECORDS[2].poses, name)).all(), name
    assert isinstance(failure, tuple)
    assert (failure[0].name, failure[0].identity, failure[1]) == (
        *("bad.jpg", "file:///bad.jpg"),
        "no image",
    )


def test_keypoints_of_another_skeleton_are_known_by_their_names(tmp_path: Path) -> None:
    hand = find_skeleton("hand21")
    record = Record("a.jpg", 64, 48, _poses(1, hand))
    for suffix in (".jsonl", ".json", ".csv"):
        results = _read(tmp_path, suffix, _written(suffix, record))
        assert results.skeleton.keypoints == hand.keypoints
        (found,) = results.records
        assert isinstance(found, Record)
        assert _lines(".jsonl", found) == _lines(".jsonl", record)


def test_the_suffix_decides_and_others_are_rejected() -> None:
    assert [format_of(Path(f"a{suffix.upper()}")) for suffix in SUFFIXES] == list(SUFFIXES)
    assert format_of(Path("/dev/stdout")) == ".jsonl"
    for name in ("a.txt", "a", "a.json.gz", "a.jsonl.part"):
        with pytest.raises(ValueError, match=f"{name}: the suffix decides") as error:
            format_of(Path(name))
        assert all(suffix in str(error.value) for suffix in SUFFIXES)


def _without_score(text: str) -> str:
    document = json.loads(text)
    del document["annotations"][0]["score"]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("suffix", "spoil", "reason"),
    [
        (".jsonl", lambda text: text + "{", "line 5 is no JSON"),
        (".jsonl", lambda text: text + "{}", "line 5 is no result"),
        (".jsonl", lambda text: text.replace('"score"', '"scor"', 1), "line 1: person 0"),
        (".jsonl", lambda text: text.replace("0.8765", '"x"', 1), "must be numbers"),
        (".jsonl", lambda text: text.replace('"nose"', '"mouth"'), "none"),
        (".jsonl", lambda text: text.replace('"left_hip"', '"hip"', 2), "in the place of"),
        (".json", lambda text: text[:-9], "not JSON"),
        (".json", lambda text: "[]", "not a COCO file of sdpose predict"),
        (".json", _without_score, "annotation 1 has no score"),
        (".csv", lambda text: text.replace("box_x", "x1"), "not the columns of sdpose predict"),
        (".csv", lambda text: text[:-30], "a row has"),
        (".csv", lambda text: text.replace("480", "tall"), "tall"),
    ],
)
def test_what_is_none_of_ours_is_named(
    suffix: str, spoil: Callable[[str], str], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / f"r{suffix}"
    text = spoil("".join(_lines(suffix, *RECORDS)))
    path.write_text(text)
    if reason == "none":  # other names are another skeleton
        assert "mouth" in open_results(path).skeleton.keypoints
        return
    with pytest.raises(ResultsError, match=reason) as error:
        list(open_results(path).records)
    assert str(path) in str(error.value)
