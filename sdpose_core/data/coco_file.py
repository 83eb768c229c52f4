"""COCO annotation files as label tools write them, read once, for our own code and pycocotools.

pycocotools takes whatever it is given: an annotation whose id is 0 never counts as found, repeated
ids hide people, a NaN passes every comparison. So images and people are numbered here, and what is
ambiguous is rejected by name.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from sdpose_core.skeleton import COCO17, Skeleton, name_key
from sdpose_core.skeleton.files import skeleton_of_category

PERSON: Final = 1
"""COCO's category id of a person, and that of every person here."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoFile:
    """Images and people of one file, checked.

    Attributes:
        path: The file, for messages.
        images: Entries with ``id`` (int), ``file_name``, ``width`` and ``height``, in file order.
        people: Annotations of persons with ``id`` (from 1, in file order), ``image_id``, ``bbox``
            (x, y, width, height), ``area``, ``iscrowd``, ``keypoints`` (3 numbers each) and
            ``num_keypoints``; ``said_id`` is the id in the file, ``mended`` names what was missing
            there ("box", "area").
        numbers: Image ids by ``id_text`` of the id in the file.
        category: The id of persons in the file.
        skeleton: Which keypoints they have, in its order.
    """

    path: Path
    images: tuple[dict[str, Any], ...]
    people: tuple[dict[str, Any], ...]
    numbers: Mapping[str, int]
    category: int | str
    skeleton: Skeleton = COCO17

    def truth(self) -> Any:
        """A ``pycocotools.coco.COCO`` of exactly these people, of category ``PERSON``."""
        from pycocotools.coco import COCO

        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                "images": [dict(image) for image in self.images],
                "annotations": [dict(person) for person in self.people],
                "categories": [{"id": PERSON, "name": "person"}],
            }
            truth.createIndex()
        return truth


def read_coco(path: Path, skeleton: Skeleton | None = COCO17) -> CocoFile:
    """Read a COCO keypoint (or person) file.

    People are those of the category named person, of the one with the keypoints of ``skeleton``, or
    of the only one. Their joints are put in its order by the names that the category gives; without
    names they are in it. None: the file's own skeleton, by its category.

    An ``area`` that is missing or 0 is that of the box, a box without area that of the labelled
    joints, with a warning.

    Raises:
        ValueError: not such a file, one of other joints, or an ambiguous one; the message names
            file and entry.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict) or not {"images", "annotations"} <= set(content):
        raise ValueError(f"{path}: expected a COCO file with images and annotations")
    for name in ("images", "annotations"):
        if not isinstance(content[name], list):
            raise ValueError(f"{path}: {name} must be a list")
    images = _images(path, content["images"])
    numbers = {key: image["id"] for key, image in images.items()}
    category = _person_category(path, content, skeleton)
    skeleton = skeleton or _own_skeleton(path, content, category)
    order = _joint_order(path, content, category, skeleton)
    people = _people(path, content["annotations"], category, numbers, order)
    return CocoFile(path, tuple(images.values()), tuple(people), numbers, category, skeleton)


def _images(path: Path, entries: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """By the text of their id, with numbers of our own unless all ids are whole numbers."""
    found: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    for index, entry in enumerate(entries):
        try:
            key = id_text(entry["id"])
            name = str(entry["file_name"])
            image = {**entry, "width": int(entry["width"]), "height": int(entry["height"])}
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else f"is damaged ({error})"
            raise ValueError(f"{path}: image {index} of the list {reason}") from error
        if key in found:
            raise ValueError(f"{path}: image {key} is listed twice")
        if name in files:
            raise ValueError(f"{path}: {name} is listed twice, as image {files[name]} and {key}")
        found[key], files[name] = image, key
    own = not all(_is_whole(key) for key in found)
    for number, (key, image) in enumerate(found.items(), 1):
        image["id"] = number if own else int(key)
    return found


def _people(
    path: Path,
    entries: Sequence[Any],
    category: int | str,
    numbers: Mapping[str, int],
    order: Sequence[int],
) -> list[dict[str, Any]]:
    people: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    without_area = without_box = 0
    for index, entry in enumerate(entries):
        where = f"{path}: annotation {_named(entry, index)}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is no object")
        if entry.get("category_id", category) != category:
            continue
        try:
            key = id_text(entry["id"]) if "id" in entry else f"number {index} of the list"
            if key in seen:
                raise ValueError(f"its id is given twice, also to number {seen[key]} of the list")
            seen[key] = index
            image = id_text(entry["image_id"])
            if image not in numbers:
                raise ValueError(f"image {image} is not in the file")
            person = _person(entry, order)
        except KeyError as error:
            raise ValueError(f"{where} has no {error}") from error
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ValueError(f"{where}: {error}") from error
        mended = []
        if person["bbox"] != [float(value) for value in entry["bbox"]]:
            mended.append("box")
        if person["area"] > 0 and float(entry.get("area") or 0) <= 0:
            mended.append("area")
        without_box += "box" in mended
        without_area += "area" in mended
        person |= {"id": len(people) + 1, "said_id": key, "image_id": numbers[image]}
        person["mended"] = mended
        people.append(person)
    if entries and not people:
        used = sorted({str(entry.get("category_id")) for entry in entries})
        raise ValueError(
            f"{path}: persons have category {category}, annotations only {', '.join(used)}"
        )
    if without_box:
        warn_once(
            f"{path}: {without_box} people have a box without area; that around their labelled "
            "joints is taken, which is smaller than a body's"
        )
    if without_area:
        warn_once(
            f"{path}: {without_area} people have no area; that of their boxes is taken, which is "
            "larger than a body's and makes OKS kinder"
        )
    return people


@cache
def warn_once(sentence: str) -> None:
    """A warning in the log, however often a file is read."""
    _log.warning("%s", sentence)


def _person(entry: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    box = _finite("bbox", entry["bbox"], 4)
    expected = 3 * len(order)
    keypoints = entry.get("keypoints", [0] * expected)
    if len(keypoints) != expected:
        raise ValueError(
            f"it has {len(keypoints) / 3:g} keypoints of 3 numbers, and a person has {len(order)}"
        )
    values = _finite("keypoints", keypoints, expected)
    joints = [values[3 * place : 3 * place + 3] for place in order]
    if min(box[2:]) <= 0:
        box = _around([joint for joint in joints if joint[2] > 0]) or box
    [area] = _finite("area", [entry.get("area") or 0], 1)
    if area <= 0:
        area = max(0.0, box[2]) * max(0.0, box[3])
    return {
        "bbox": box,
        "area": area,
        "iscrowd": int(bool(entry.get("iscrowd", 0))),
        "keypoints": [number for joint in joints for number in joint],
        "num_keypoints": sum(flag > 0 for _, _, flag in joints),
        "category_id": PERSON,
    }


def _around(joints: Sequence[Sequence[float]]) -> list[float]:
    """The box (x, y, width, height) of joints; empty if it has no area."""
    xs, ys = [joint[0] for joint in joints], [joint[1] for joint in joints]
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        return []
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _joint_order(
    path: Path, content: dict[str, Any], category: int | str, skeleton: Skeleton
) -> Sequence[int]:
    """The place of each keypoint in the lists of this file, by the names of its category."""
    listed = content.get("categories") or []
    names = next((_joints(one) for one in listed if one.get("id") == category), [])
    jointed = any(isinstance(one, dict) and "keypoints" in one for one in content["annotations"])
    if not names or not jointed:
        return range(len(skeleton))
    return skeleton.order_in(names, f"{path}: the keypoints of category {category}")


def _own_skeleton(path: Path, content: dict[str, Any], category: int | str) -> Skeleton:
    """That of the category; COCO's if these are COCO's keypoints in any order."""
    listed = content.get("categories") or []
    own: dict[str, Any] = next((one for one in listed if one.get("id") == category), {})
    if not own.get("keypoints"):
        return COCO17
    made = skeleton_of_category(own, f"{path}: category {category}")
    return COCO17 if _keys(made.keypoints) == _keys(COCO17.keypoints) else made


def _keys(names: Iterable[str]) -> set[str]:
    return {name_key(name) for name in names}


def _person_category(path: Path, content: dict[str, Any], skeleton: Skeleton | None) -> int | str:
    """The id of persons in this file; COCO's if annotations have none."""
    used = {
        entry["category_id"]
        for entry in content["annotations"]
        if isinstance(entry, dict) and isinstance(entry.get("category_id"), int | str)
    }
    listed = content.get("categories") or []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ValueError(f"{path}: categories must be a list of objects")
    named = [one.get("id") for one in listed if str(one.get("name")).lower() == "person"]
    jointed = [
        one.get("id")
        for one in listed
        if (names := _joints(one))
        and (skeleton is None or _keys(names) == _keys(skeleton.keypoints))
    ]
    only = [one.get("id") for one in listed] if len(listed) == 1 else []
    # Label Studio writes people's boxes as one category, and their keypoints as another.
    filled = [
        entry.get("category_id")
        for entry in content["annotations"]
        if isinstance(entry, dict) and entry.get("keypoints")
    ]
    posed = named if len(named) > 1 else [one for one in named if one in filled]
    for found in (posed, jointed, named, only, [] if listed else sorted(used, key=str)):
        if len(found) == 1 and isinstance(found[0], int | str):
            return found[0]
        if len(found) > 1:
            break
    if not used or (not listed and PERSON in used):
        return PERSON
    categories = ", ".join(f"{one.get('id')} {one.get('name')}" for one in listed)
    raise ValueError(
        f"{path}: which category is a person ({categories or 'none is listed'})? Name one so, or "
        "give one COCO's keypoints"
    )


def _joints(category: Mapping[str, Any]) -> list[str]:
    joints = category.get("keypoints")
    return [str(name) for name in joints] if isinstance(joints, list) else []


def id_text(given: object) -> str:
    """The text of an id: the same for 7, 7.0 and "7"."""
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise ValueError(f"an id is a whole number or a text, not {given!r}")
    return str(int(given)) if _is_whole(str(given)) else str(given)


def _is_whole(key: str) -> bool:
    return key.isascii() and key.lstrip("-").isdigit() and len(key) <= 18


def _named(entry: Any, index: int) -> str:
    key = entry.get("id") if isinstance(entry, dict) else None
    return f"number {index} of the list" if key is None else str(key)


def _finite(name: str, values: Any, count: int) -> list[float]:
    numbers = [float(value) for value in values]
    if len(numbers) != count:
        raise ValueError(f"{name} has {len(numbers)} numbers instead of {count}")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} holds {next(n for n in numbers if not math.isfinite(n))}")
    return numbers
