"""Poses as text: JSON lines, COCO keypoint JSON, CSV."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from sdpose_core.io.exchange import coco_annotations
from sdpose_core.io.people import people_json, rounded
from sdpose_core.io.sources import Source
from sdpose_core.skeleton import Skeleton
from sdpose_core.types import Poses


@dataclass(frozen=True, slots=True)
class Record:
    """The people of one image, or of one frame of a video.

    Attributes:
        source: name of the file.
        width: of the image, pixels.
        height: of the image, pixels.
        poses: in pixels of the image.
        frame: number of the frame from 0; None for an image.
        time_s: seconds from the start of the video; None for an image.
        identity: of the file, the same whatever it is called.

    Raises:
        ValueError: a number of the poses is not finite, which no format here can say.
    """

    source: str
    width: int
    height: int
    poses: Poses
    frame: int | None = None
    time_s: float | None = None
    identity: str = ""

    def __post_init__(self) -> None:
        if not self.poses.finite:
            where = "" if self.frame is None else f"frame {self.frame}: "
            raise ValueError(f"{where}the models gave a number that is not finite")


class RecordWriter(Protocol):
    """Writes records as they come; every call writes whole lines only."""

    def write(self, record: Record) -> None: ...

    def skip(self, source: Source, reason: str) -> None:
        """Notes a source without results, or without all of them."""
        ...

    def finish(self) -> None:
        """Write what belongs at the end."""
        ...


class JsonLines:
    """One line per image or frame: people as in the answer of ``POST /pose``."""

    def __init__(self, put: Callable[[str], object]) -> None:
        self._put = put

    def write(self, record: Record) -> None:
        line: dict[str, Any] = {"input": record.source}
        if record.frame is not None:
            line |= {"frame": record.frame, "time_s": rounded(record.time_s or 0.0, 4)}
        line["image"] = {"width": record.width, "height": record.height}
        line["people"] = people_json(record.poses)
        self._put(json.dumps(line) + "\n")

    def skip(self, source: Source, reason: str) -> None:
        pass

    def finish(self) -> None:
        pass


class Csv:
    """One row per person: image, frame, id over time, box, and x, y, score, visibility (empty if
    the student has no score head) of every keypoint."""

    def __init__(self, put: Callable[[str], object], skeleton: Skeleton) -> None:
        self._put = put
        columns = ["input", "frame", "time_s", "person", "id", "score", "x1", "y1", "x2", "y2"]
        for name in skeleton.keypoints:
            columns += [f"{name}_{value}" for value in ("x", "y", "score", "visibility")]
        self._row(columns)

    def _row(self, values: list[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self._put(text.getvalue())

    def write(self, record: Record) -> None:
        poses = record.poses
        points, scores = rounded(poses.keypoints, 3), rounded(poses.keypoint_scores, 4)
        visibility = np.full(poses.keypoint_scores.shape, "").tolist()
        if poses.visibility is not None:
            visibility = rounded(poses.visibility, 4)
        for index in range(len(poses)):
            frame = "" if record.frame is None else record.frame
            time_s = "" if record.time_s is None else rounded(record.time_s, 4)
            row = [record.source, frame, time_s, index, _id(poses, index) or ""]
            row.append(rounded(poses.scores[index], 4))
            row += rounded(poses.boxes[index], 3)
            for point, *values in zip(points[index], scores[index], visibility[index], strict=True):
                row += [*point, *values]
            self._row(row)

    def skip(self, source: Source, reason: str) -> None:
        pass

    def finish(self) -> None:
        pass


class Coco:
    """One COCO keypoint file: images, annotations and the person category.

    An image whose name is a number keeps it as its image id, as COCO's own images need to be
    scored; others are counted on. ``score``, ``keypoint_scores``, ``visibility`` (if the
    student has a score head) and ``track_id`` come on top of the format, so that the annotations
    also serve as results.
    """

    def __init__(self, put: Callable[[str], object], skeleton: Skeleton) -> None:
        self._put = put
        self._skeleton = skeleton
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def write(self, record: Record) -> None:
        position = len(self._images)
        image: dict[str, Any] = {
            "id": 0,  # known at the end, when all names are
            "file_name": record.source,
            "width": record.width,
            "height": record.height,
        }
        if record.frame is not None:
            image |= {"frame": record.frame, "time_s": rounded(record.time_s or 0.0, 4)}
        self._images.append(image)
        self._annotations += coco_annotations(record.poses, position, len(self._annotations) + 1)

    def skip(self, source: Source, reason: str) -> None:
        pass

    def _number_images(self) -> None:
        """Names that are numbers first, whatever the order: no other gets theirs."""
        taken: set[int] = set()
        for image in self._images:
            stem = Path(image["file_name"]).stem
            number = int(stem) if "frame" not in image and stem.isdecimal() else 0
            if number > 0 and number not in taken:
                image["id"] = number
                taken.add(number)
        free = (number for number in itertools.count(1) if number not in taken)
        for image in self._images:
            image["id"] = image["id"] or next(free)
        for annotation in self._annotations:
            annotation["image_id"] = self._images[annotation["image_id"]]["id"]

    def finish(self) -> None:
        self._number_images()
        category = {
            "id": 1,
            "name": "person",
            "supercategory": "person",
            "keypoints": list(self._skeleton.keypoints),
            "skeleton": [[a + 1, b + 1] for a, b in self._skeleton.edges],
        }
        document = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [category],
        }
        self._put(json.dumps(document) + "\n")


def _id(poses: Poses, index: int) -> int:
    """Id of the person over time; 0 if unknown."""
    return 0 if poses.ids is None else int(poses.ids[index])


WRITERS: Final[dict[str, Callable[[Callable[[str], object], Skeleton], RecordWriter]]] = {
    "jsonl": lambda put, skeleton: JsonLines(put),
    "coco": Coco,
    "csv": Csv,
}
