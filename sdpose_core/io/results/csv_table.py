"""CSV: one row per person, whose columns are the names of JSON joined by ``_``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sdpose_core.io.people import (
    BOX_FIELDS,
    JOINT_FIELDS,
    PIXEL_DIGITS,
    SCORE_DIGITS,
    box_values,
    ids_of,
    poses_from,
    rounded,
    rounded_joints,
)
from sdpose_core.io.results.record import Record, Results, ResultsError, TextWriter
from sdpose_core.skeleton import Skeleton
from sdpose_core.skeleton.files import skeleton_of_names

_COLUMNS: Final = (
    *("input", "frame", "time_s", "image_width", "image_height", "person"),
    *(f"box_{field}" for field in BOX_FIELDS),
    *("score", "id"),
)


def _columns(names: Sequence[str]) -> list[str]:
    return [*_COLUMNS, *(f"{name}_{field}" for name in names for field in JOINT_FIELDS)]


class Csv(TextWriter):
    """A row per person; an image without people has none."""

    def __init__(self, put: Callable[[str], object], skeleton: Skeleton) -> None:
        self._put = put
        self._row(_columns(skeleton.keypoints))

    def _row(self, values: list[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self._put(text.getvalue())

    def write(self, record: Record) -> None:
        poses = record.poses
        frame = "" if record.frame is None else record.frame
        time_s = "" if record.time_s is None else rounded(record.time_s, 4)
        image = [record.source, frame, time_s, record.width, record.height]
        for index, (one, score, box, joints) in enumerate(
            zip(
                ids_of(poses),
                rounded(poses.scores, SCORE_DIGITS),
                rounded(box_values(poses), PIXEL_DIGITS),
                rounded_joints(poses),
                strict=True,
            )
        ):
            values: list[Any] = []
            for joint in joints:
                values += [*joint, *[""] * (len(JOINT_FIELDS) - len(joint))]
            self._row([*image, index, *box, score, one or "", *values])


def read_csv(path: Path) -> Results:
    """The skeleton is the one of the keypoints that the columns name.

    Raises:
        ResultsError: columns or a row are none of ours.
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            columns = next(csv.reader(file), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise ResultsError(f"{path}: no CSV ({error})") from error
    first, last = f"_{JOINT_FIELDS[0]}", len(_COLUMNS)
    names = tuple(name.removesuffix(first) for name in columns[last :: len(JOINT_FIELDS)])
    if not names or columns != _columns(names):
        expected = ", ".join([*_COLUMNS, *(f"JOINT_{field}" for field in JOINT_FIELDS)])
        raise ResultsError(f"{path}: not the columns of sdpose predict: {expected}")
    try:
        skeleton = skeleton_of_names(names)
    except ValueError as error:
        raise ResultsError(f"{path}: {error}") from error
    return Results(skeleton, _records(path, skeleton))


def _records(path: Path, skeleton: Skeleton) -> Iterator[Record]:
    rows: list[list[str]] = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        try:
            next(reader)
            for row in reader:
                if rows and row[5:6] == ["0"]:  # the first person of the next image
                    yield _record(rows, skeleton)
                    rows = []
                rows.append(row)
            if rows:
                yield _record(rows, skeleton)
        except (ValueError, IndexError, csv.Error) as error:
            raise ResultsError(f"{path}: before line {reader.line_num + 1}: {error}") from error


def _record(rows: Sequence[Sequence[str]], skeleton: Skeleton) -> Record:
    source, frame, time_s, width, height = rows[0][:5]
    people = []
    for row in rows:
        joints, size = row[len(_COLUMNS) :], len(JOINT_FIELDS)
        if len(row) != len(_columns(skeleton.keypoints)):
            raise ValueError(f"a row has {len(row)} values")
        people.append(
            {
                "box": dict(zip(BOX_FIELDS, row[6:10], strict=True)),
                "score": row[10],
                "id": row[11],
                "keypoints": [
                    dict(zip(JOINT_FIELDS, joints[start : start + size], strict=True))
                    for start in range(0, len(joints), size)
                ],
            }
        )
    poses = poses_from(people, skeleton)
    return Record(
        source,
        int(width),
        int(height),
        poses,
        int(frame) if frame else None,
        float(time_s) if time_s else None,
    )
