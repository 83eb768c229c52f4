"""COCO files as label tools write them: the same numbers whatever their ids, or a refusal."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdpose_core.data.coco import load_coco
from sdpose_core.data.coco_file import read_coco
from sdpose_core.evaluate.detection import read_annotated, tall_recall
from sdpose_core.evaluate.report import Evaluation, evaluate
from sdpose_core.evaluate.results import read_boxes
from sdpose_core.skeleton import COCO17
from tests.train.people import changing, coco_folder
from tests.train.test_evaluation import answer, noisy

Content = dict[str, Any]
Change = Callable[[Content], None]


def changed(folder: Path, change: Change) -> tuple[Path, Path]:
    annotations, images = coco_folder(folder)
    with changing(annotations) as content:
        change(content)
    return annotations, images


def measured(annotations: Path, images: Path) -> Evaluation:
    return evaluate(
        "noisy",
        load_coco(annotations, images),
        annotations,
        answer(noisy),
        given_boxes=True,
        bootstrap=5,
    )[0]


def from_zero(content: Content) -> None:
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number


def texts(content: Content) -> None:
    for entry in content["images"]:
        entry["id"] = str(entry["id"])
    for annotation in content["annotations"]:
        annotation["id"] = f"person-{annotation['id']}"
        annotation["image_id"] = str(annotation["image_id"])


def no_ids_of_people(content: Content) -> None:
    for annotation in content["annotations"]:
        del annotation["id"]


def computed_fields(content: Content) -> None:
    for annotation in content["annotations"]:
        annotation.pop("iscrowd", None)
        annotation["num_keypoints"] = 0  # wrong, and not asked
    del content["annotations"][0]["num_keypoints"]


def category(number: int, listed: list[Content] | None) -> Change:
    def change(content: Content) -> None:
        content.pop("categories", None)
        if listed is not None:
            content["categories"] = listed
        for annotation in content["annotations"]:
            annotation["category_id"] = number

    return change


def dogs(content: Content) -> None:
    content["categories"] = [{"id": 1, "name": "dog"}, {"id": 4, "name": "Person"}]
    for annotation in content["annotations"]:
        annotation["category_id"] = 4
    first = content["annotations"][0]
    content["annotations"].append(
        {"id": 999, "image_id": first["image_id"], "category_id": 1, "bbox": [0, 0, 9, 9]}
    )


def alphabetic(content: Content) -> None:
    """Joints in another order, which the category gives, with names as people write them."""
    order = sorted(range(17), key=lambda place: COCO17.keypoints[place])
    names = [COCO17.keypoints[place].replace("_", " ").title() for place in order]
    content["categories"] = [{"id": 1, "name": "person", "keypoints": names}]
    for annotation in content["annotations"]:
        rows = [annotation["keypoints"][3 * place : 3 * place + 3] for place in order]
        annotation["keypoints"] = [number for row in rows for number in row]


def named(*names: str) -> Change:
    return lambda content: content["categories"][0].update(keypoints=list(names))


@pytest.mark.parametrize(
    "change",
    [
        alphabetic,
        from_zero,
        texts,
        no_ids_of_people,
        computed_fields,
        category(0, [{"id": 0, "name": "person"}]),
        category(9, [{"id": 9, "name": "Mensch"}]),
        category(9, [{"id": 9, "name": "x", "keypoints": list(COCO17.keypoints)}, {"id": 1}]),
        category(3, None),
        dogs,
    ],
)
def test_the_numbers_are_the_same(tmp_path: Path, change: Change) -> None:
    expected = measured(*changed(tmp_path / "a", lambda _: None))
    assert 0.2 < expected.coco["AP"] < 0.99
    # As text, in which nan equals nan.
    assert str(measured(*changed(tmp_path / "b", change))) == str(expected)


def test_names_as_image_ids(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        for entry in content["images"]:
            entry["id"] = f"photo {entry['id']}"
        for annotation in content["annotations"]:
            annotation["image_id"] = f"photo {annotation['image_id']}"

    annotations, images = changed(tmp_path, change)
    assert [image.image_id for image in load_coco(annotations, images)] == [1, 2, 3, 4]
    assert measured(annotations, images).people == 8
    row = {"image_id": "photo 2", "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([row]))
    # Entries are in the order of the file.
    file = read_coco(annotations)
    assert list(read_boxes(boxes, file)) == [file.numbers["photo 2"]]
    boxes.write_text(json.dumps([{**row, "image_id": 77}]))
    with pytest.raises(ValueError, match=r"its images are not those of .*people\.json"):
        read_boxes(boxes, file)
    boxes.write_text(json.dumps([{**row, "score": float("nan")}]))
    with pytest.raises(ValueError, match="not finite"):
        read_boxes(boxes, file)


@pytest.mark.parametrize("area", [None, 0, -4])
def test_an_area_that_is_missing_or_0_is_the_boxs(
    area: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations, images = changed(tmp_path, first(area=area))
    with caplog.at_level(logging.WARNING):
        person = load_coco(annotations, images)[0].people[0]
    assert "1 people have no area" in caplog.text
    _, _, width, height = read_coco(annotations).people[0]["bbox"]
    assert person.area == pytest.approx(width * height)


def test_a_box_of_0_is_that_around_the_joints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations, images = changed(tmp_path, first(bbox=[0, 0, 0, 0], area=0))
    with caplog.at_level(logging.WARNING):
        person = load_coco(annotations, images)[0].people[0]
    assert "1 people have a box without area" in caplog.text
    xy = person.keypoints[person.keypoints[:, 2] > 0, :2]
    x, y, width, height = read_coco(annotations).people[0]["bbox"]
    assert (x, y) == pytest.approx(xy.min(axis=0))
    assert (x + width, y + height) == pytest.approx(xy.max(axis=0))
    assert person.area == pytest.approx(width * height)


def test_who_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(content: Content) -> None:
        crowd, unlabelled, outside, *_ = content["annotations"]
        crowd["iscrowd"] = 1
        unlabelled["keypoints"] = [0] * 51
        outside["bbox"] = [5000, 0, 20, 20]

    annotations, images = changed(tmp_path, change)
    with caplog.at_level(logging.WARNING):
        assert sum(len(image.people) for image in load_coco(annotations, images)) == 5
    assert (
        "people.json: 3 of 8 people are left out: 1 in a crowd, 1 without a labelled joint, "
        "1 whose box has no area inside the image" in caplog.text
    )


def first(**fields: object) -> Change:
    return lambda content: content["annotations"][0].update(fields)


def twice(name: str, **fields: object) -> Change:
    return lambda content: content[name].append({**content[name][0], **fields})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (first(id=11), "annotation 11: its id is given twice, also to number 0 of the list"),
        (twice("images"), "image 1 is listed twice"),
        (twice("images", id=99), r"000001\.png is listed twice, as image 1 and 99"),
        (first(bbox=[1, 2, float("nan"), 4]), "annotation 10: bbox holds nan"),
        (first(bbox=[1, 2, 3]), "annotation 10: bbox has 3 numbers instead of 4"),
        (first(area=float("inf")), "annotation 10: area holds inf"),
        (first(keypoints=[float("nan")] * 51), "annotation 10: keypoints holds nan"),
        (first(keypoints=[1] * 39), "annotation 10: it has 13 keypoints of 3 numbers, and a pers"),
        (named("nose", "neck"), "keypoints of category 1: number 2, 'neck', is none of coco17's"),
        (named("nose", "Nose"), "number 2, 'Nose', comes twice"),
        (named(*COCO17.keypoints[:-1]), "'right_ankle' is missing; expected 17"),
        (named(*COCO17.keypoints, "tail"), "number 18, 'tail', is none of coco17's"),
        (first(image_id=77), "annotation 10: image 77 is not in the file"),
        (lambda content: content["annotations"][0].pop("bbox"), "annotation 10 has no 'bbox'"),
        (category(0, [{"id": 1, "name": "person"}]), "persons have category 1, annotations onl"),
        (first(image_id=[3]), "annotation 10: an id is a whole number or a text"),
        (first(image_id=True), "annotation 10: an id is a whole number or a text, not True"),
        (lambda content: content["annotations"].append(7), "annotation number 8 of the list is no"),
        (lambda content: content.update(annotations={}), "annotations must be a list"),
        (lambda content: content.update(categories={"1": "person"}), "categories must be a list"),
        (category(5, [{"id": 5, "name": "a"}, {"id": 6, "name": "b"}]), "which category is a per"),
        (
            category(1, [{"id": 1, "name": "person"}, {"id": 2, "name": "Person"}]),
            "which category is a person",
        ),
    ],
)
def test_the_ambiguous_is_refused_by_name(tmp_path: Path, change: Change, said: str) -> None:
    annotations, images = changed(tmp_path, change)
    for read in (load_coco, read_annotated):
        with pytest.raises(ValueError, match=said) as caught:
            read(annotations, images)
        assert str(annotations) in str(caught.value)


def test_the_detectors_measure_reads_the_same_people(tmp_path: Path) -> None:
    annotations, images = changed(tmp_path, dogs)
    annotated = read_annotated(annotations, images)
    assert len(annotated.truth.anns) == 8
    assert min(annotated.truth.anns) == 1
    assert tall_recall({}, annotated) == 0
