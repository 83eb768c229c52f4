"""JSON lines: one image or frame per line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sdpose_core.io.people import people_json, poses_from, rounded
from sdpose_core.io.results.record import Record, Results, ResultsError, TextWriter
from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.skeleton.files import skeleton_of_names


class JsonLines(TextWriter):
    """People as in the answer of ``POST /pose``."""

    def __init__(self, put: Callable[[str], object]) -> None:
        self._put = put

    def write(self, record: Record) -> None:
        line: dict[str, Any] = {"input": record.source}
        if record.frame is not None:
            line |= {"frame": record.frame, "time_s": rounded(record.time_s or 0.0, 4)}
        line["image"] = {"width": record.width, "height": record.height}
        line["people"] = people_json(record.poses)
        self._put(json.dumps(line) + "\n")


def read_json_lines(path: Path) -> Results:
    """The skeleton is the one of these keypoints; COCO's if no one is in the file.

    Raises:
        ResultsError: a line is none of ours.
        OSError: it cannot be read.
    """
    people = (person for _, line in _lines(path) for person in line["people"])
    first = next(people, None)
    skeleton = COCO17
    if first is not None:
        try:
            skeleton = skeleton_of_names(tuple(joint["name"] for joint in first["keypoints"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"{path}: no results of sdpose predict ({error})") from error
    return Results(skeleton, _records(path, skeleton))


def _records(path: Path, skeleton: Skeleton) -> Iterator[Record]:
    for number, line in _lines(path):
        try:
            yield Record(
                str(line["input"]),
                int(line["image"]["width"]),
                int(line["image"]["height"]),
                poses_from(line["people"], skeleton),
                line.get("frame"),
                line.get("time_s"),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ResultsError(f"{path}: line {number}: {reason}") from error


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
            except (RecursionError, ValueError) as error:
                raise ResultsError(f"{path}: line {number} is no JSON ({error})") from error
            if not isinstance(line, dict) or not isinstance(line.get("people"), list):
                raise ResultsError(f"{path}: line {number} is no result of sdpose predict")
            yield number, line
