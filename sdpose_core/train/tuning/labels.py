"""A user's labels, as label tools write them: COCO files, and folders of YOLO pose labels."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import cv2
import yaml

from sdpose_core.data.coco_file import PERSON, CocoFile, read_coco
from sdpose_core.files.whole_file import whole_file
from sdpose_core.skeleton import COCO17, Skeleton

PICTURES: Final = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
"""Suffixes of images beside YOLO labels."""
GROWN: Final = 0.125
"""Share of its size by which a box that ends at its keypoints is grown on each side: a detector's
box holds the whole person."""


@dataclass(frozen=True)
class Labels:
    """Labels and their images.

    Attributes:
        file: The labels; every ``file_name`` is that of a file in ``folder``.
        folder: Of the images.
        missing: File names of labelled images that are not there; they are not in ``file``.
        held_out: Images (``id``) that the labels themselves name for validation.
        grown: Annotations (``said_id``) whose box ended at their keypoints.
    """

    file: CocoFile
    folder: Path
    missing: tuple[str, ...] = ()
    held_out: frozenset[int] = frozenset()
    grown: tuple[str, ...] = ()


def read_labels(given: Path, images: Path | None, skeleton: Skeleton | None = None) -> Labels:
    """Labels of a COCO file with a folder of images, or of YOLO's ``data.yaml`` or its folder.

    ``skeleton``: of the labels, if they do not name their keypoints, or for its edges, mirror pairs
    and tolerances.

    Raises:
        ValueError: they cannot be read, or none of the images is there; names file and entry.
    """
    if given.is_dir() and (given / "data.yaml").is_file():
        given = given / "data.yaml"
    if given.suffix.lower() in (".yaml", ".yml"):
        if images is not None:
            raise ValueError(f"{images}: {given} names its images itself; give one of them")
        return _with_boxes(_read_yolo(given, skeleton))
    if not given.is_file():
        raise ValueError(
            f"{given}: no such file; expected a COCO file and a folder of images, or the "
            "data.yaml of YOLO pose labels"
        )
    if images is None:
        raise ValueError(f"{given}: a COCO file needs the folder of its images after it")
    if not images.is_dir():
        raise ValueError(f"{images}: no such folder of images")
    return _with_boxes(_found(read_coco(given, skeleton), images))


def write_coco(file: CocoFile, path: Path, chosen: Collection[int]) -> None:
    """The images of these ids and their people as a COCO file, with names and tolerances."""
    skeleton = file.skeleton
    content = {
        "images": [one for one in file.images if one["id"] in chosen],
        "annotations": [
            {k: v for k, v in one.items() if k not in ("said_id", "mended")}
            for one in file.people
            if one["image_id"] in chosen
        ],
        "categories": [
            {
                "id": PERSON,
                "name": "person",
                "keypoints": list(skeleton.keypoints),
                "skeleton": [[a + 1, b + 1] for a, b in skeleton.edges],
                "sigmas": list(skeleton.sigmas),
            }
        ],
    }
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content))


def _found(file: CocoFile, folder: Path) -> Labels:
    """The images that are there, under the name in the file or by the last part of it: tools write
    the path that an image had with them."""
    kept, missing = [], []
    for image in file.images:
        name = str(image["file_name"]).replace("\\", "/")
        there = [one for one in (name, PurePosixPath(name).name) if (folder / one).is_file()]
        if there:
            kept.append({**image, "file_name": there[0]})
        else:
            missing.append(name)
    if not kept:
        first = missing[0] if missing else "it lists none"
        raise ValueError(f"{file.path}: none of its images is in {folder} ({first})")
    ids = {image["id"] for image in kept}
    people = tuple(one for one in file.people if one["image_id"] in ids)
    return Labels(replace(file, images=tuple(kept), people=people), folder, tuple(missing))


def _with_boxes(labels: Labels) -> Labels:
    """Boxes that end at the outermost keypoints, as some tools write them, grown."""
    grown, people = [], []
    for one in labels.file.people:
        points = [one["keypoints"][at : at + 3] for at in range(0, len(one["keypoints"]), 3)]
        known = [point for point in points if point[2] > 0]
        x, y, width, height = one["bbox"]
        ends = (
            len(known) > 2
            and abs(min(p[0] for p in known) - x) <= 1
            and abs(min(p[1] for p in known) - y) <= 1
            and abs(max(p[0] for p in known) - x - width) <= 1
            and abs(max(p[1] for p in known) - y - height) <= 1
        )
        if ends:
            grown.append(str(one["said_id"]))
            dx, dy = GROWN * width, GROWN * height
            one = {**one, "bbox": [x - dx, y - dy, width + 2 * dx, height + 2 * dy]}
        people.append(one)
    file = replace(labels.file, people=tuple(people))
    return replace(labels, file=file, grown=tuple(grown))


def _read_yolo(path: Path, skeleton: Skeleton | None) -> Labels:
    """Labels in ultralytics' layout: ``labels`` beside ``images``, a text file per image, a line
    per object, all numbers in units of the image's width and height."""
    try:
        about = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a readable YAML file ({error})") from error
    if not isinstance(about, Mapping) or "kpt_shape" not in about:
        raise ValueError(f"{path}: no kpt_shape; expected the data.yaml of YOLO pose labels")
    try:
        count, numbers = (int(value) for value in about["kpt_shape"])
    except (TypeError, ValueError):
        raise ValueError(
            f"{path}: kpt_shape {about['kpt_shape']!r}: expected two numbers"
        ) from None
    if numbers not in (2, 3):
        raise ValueError(f"{path}: kpt_shape: {numbers} numbers a keypoint, expected 2 or 3")
    skeleton = skeleton or _yolo_skeleton(path, about, count)
    if len(skeleton) != count:
        raise ValueError(
            f"{path}: kpt_shape: {count} keypoints, but {skeleton.name} has {len(skeleton)}"
        )
    root = path.parent / str(about.get("path") or "")
    if not root.is_dir():
        root = path.parent  # the path that it had where it was made
    images: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    held: set[int] = set()
    for part in ("train", "val"):
        for picture in _pictures(path, root, about.get(part)):
            number = len(images) + 1
            pixels = cv2.imread(str(picture))
            if pixels is None:
                raise ValueError(f"{picture}: not a readable image")
            height, width = pixels.shape[:2]
            whole = picture.resolve()
            inside = whole.is_relative_to(root.resolve())
            name = (whole.relative_to(root.resolve()) if inside else whole).as_posix()
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            if part == "val":
                held.add(number)
            for line, row in _rows(picture, count, numbers):
                key = f"{_label_file(picture).name}:{line}"
                entry = _yolo_person(row, (width, height), numbers)
                people.append({**entry, "id": len(people) + 1, "image_id": number, "said_id": key})
    file = CocoFile(path, tuple(images), tuple(people), {}, PERSON, skeleton)
    return Labels(file, root, held_out=frozenset(held))


def _yolo_skeleton(path: Path, about: Mapping[str, Any], count: int) -> Skeleton:
    names = about.get("kpt_names")
    if isinstance(names, Mapping):
        names = list(names.values())
    if isinstance(names, list) and names and isinstance(names[0], list):
        if any(one != names[0] for one in names):
            raise ValueError(f"{path}: kpt_names: the classes have different keypoints")
        names = names[0]
    if not names:
        if count == len(COCO17):
            return COCO17
        raise ValueError(
            f"{path}: no kpt_names for {count} keypoints: add them, or give --skeleton"
        )
    mirror = None
    flips = about.get("flip_idx")
    if flips:
        if sorted(flips) != list(range(len(names))):
            raise ValueError(f"{path}: flip_idx: expected each of 0 to {len(names) - 1} once")
        mirror = [(names[a], names[b]) for a, b in enumerate(flips) if a != b]
    made = Skeleton.make(path.parent.name or "keypoints", names, mirror=mirror, where=str(path))
    return COCO17 if made.keypoints == COCO17.keypoints else made


def _pictures(path: Path, root: Path, given: Any) -> list[Path]:
    """Images of a part: of a folder, a text file of paths, or a list of those."""
    if not given:
        return []
    found: list[Path] = []
    for one in given if isinstance(given, list) else [given]:
        place = root / str(one)
        if place.is_dir():
            found += sorted(p for p in place.rglob("*") if p.suffix.lower() in PICTURES)
        elif place.is_file():
            lines = place.read_text(encoding="utf-8").split("\n")
            found += [root / line.strip() for line in lines if line.strip()]
        else:
            raise ValueError(f"{path}: {place}: no such folder of images")
    return found


def _label_file(picture: Path) -> Path:
    parts = list(picture.parts)
    for at in range(len(parts) - 1, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _rows(picture: Path, count: int, numbers: int) -> list[tuple[int, list[float]]]:
    """Line numbers and numbers of a label file; none if the image has none."""
    file = _label_file(picture)
    if not file.is_file():
        return []
    rows = []
    expected = 5 + count * numbers
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(value) for value in line.split()]
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from error
        if len(values) != expected:
            raise ValueError(
                f"{file}, line {number}: {len(values)} numbers, expected {expected}: class, box "
                f"and {count} keypoints of {numbers}"
            )
        if not all(abs(value) < 1e6 for value in values):
            raise ValueError(f"{file}, line {number}: a number is not finite")
        rows.append((number, values))
    return rows


def _yolo_person(row: list[float], size: tuple[int, int], numbers: int) -> dict[str, Any]:
    width, height = size
    middle_x, middle_y, wide, high = row[1:5]
    box = [
        (middle_x - wide / 2) * width, (middle_y - high / 2) * height, wide * width, high * height
    ]  # fmt: skip
    keypoints: list[float] = []
    for at in range(5, len(row), numbers):
        x, y = row[at : at + 2]
        # Two numbers have no flag: both 0 is how ultralytics writes an absent one.
        flag = row[at + 2] if numbers == 3 else 2.0 * (x > 0 or y > 0)
        keypoints += [x * width, y * height, flag] if flag > 0 else [0.0, 0.0, 0.0]
    return {
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
        "keypoints": keypoints,
        "num_keypoints": sum(flag > 0 for flag in keypoints[2::3]),
        "category_id": PERSON,
        "mended": ["area"],
    }
