"""COCO keypoint files (cocodataset.org, "data format").

``pycocotools.COCO`` reads them, and label tools do; videos and their frames are as in the COCO-VID
format. On top of it annotations have ``score``, ``keypoint_scores`` and ``track_id``, so they also
serve as results (``COCO.loadRes``), and nothing is lost when the file is converted.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from sdpose_core.io.exchange import coco_annotations
from sdpose_core.io.people import (
    BOX_FIELDS,
    JOINT_FIELDS,
    JOINT_VALUES,
    poses_from,
    rounded,
)
from sdpose_core.io.results.record import Record, Results, ResultsError, TextWriter
from sdpose_core.skeleton import Skeleton
from sdpose_core.skeleton.files import skeleton_of_category
from sdpose_core.types import Poses

_NEEDED: Final = {"score", *(v.attribute for v in JOINT_VALUES if not v.optional)}


class Coco(TextWriter):
    """One document: images, annotations and the person category.

    An image whose name is a number keeps it as its image id, as COCO's own images need to be
    scored; others are counted on. A joint that scores below ``min_keypoint_score``, or is beyond
    the image, has v 0 and does not count in ``num_keypoints``. It keeps its place, by which results
    are scored.
    """

    def __init__(
        self, put: Callable[[str], object], skeleton: Skeleton, min_keypoint_score: float
    ) -> None:
        self._put = put
        self._skeleton = skeleton
        self._minimum = min_keypoint_score
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._videos: dict[str, int] = {}

    def write(self, record: Record) -> None:
        position = len(self._images)
        image: dict[str, Any] = {
            "id": 0,  # known at the end, when all names are
            "file_name": record.source,
            "width": record.width,
            "height": record.height,
        }
        if record.frame is not None:
            video = self._videos.setdefault(record.source, len(self._videos) + 1)
            image |= {
                "file_name": f"{record.source}/{record.frame:06d}.jpg",
                "video_id": video,
                "frame_id": record.frame,
                "time_s": rounded(record.time_s or 0.0, 4),
            }
        self._images.append(image)
        self._annotations += coco_annotations(
            record.poses,
            position,
            len(self._annotations) + 1,
            min_keypoint_score=self._minimum,
            size=(record.width, record.height),
        )

    def _number_images(self) -> None:
        """Names that are numbers first, whatever the order: no other gets theirs."""
        taken: set[int] = set()
        for image in self._images:
            stem = Path(image["file_name"]).stem
            number = int(stem) if "video_id" not in image and stem.isdecimal() else 0
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
        videos = [{"id": number, "name": name} for name, number in self._videos.items()]
        document = {
            "images": self._images,
            **({"videos": videos} if videos else {}),
            "annotations": self._annotations,
            "categories": [category],
        }
        self._put(json.dumps(document) + "\n")


def read_results(path: Path) -> Results:
    """The results in a COCO file that ``Coco`` wrote; ``data.coco_file`` reads labels.

    Raises:
        ResultsError: it is none of ours.
        OSError: it cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: not JSON ({error})") from error
    try:
        (category,) = document["categories"]
        skeleton = skeleton_of_category(category, str(path))
        videos = {video["id"]: str(video["name"]) for video in document.get("videos", ())}
        people = defaultdict(list)
        for annotation in document["annotations"]:
            if (
                missing := {"score", *(v.attribute for v in JOINT_VALUES if not v.optional)}
                - annotation.keys()
            ):
                raise ResultsError(
                    f"{path}: annotation {annotation['id']} has no {min(missing)}: expected a file "
                    "that sdpose predict wrote"
                )
            people[annotation["image_id"]].append(annotation)
        images = [_image(image, videos) for image in document["images"]]
    except ResultsError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ResultsError(f"{path}: not a COCO file of sdpose predict ({reason})") from error
    return Results(skeleton, _records(path, images, people, skeleton))


def _image(image: dict[str, Any], videos: dict[Any, str]) -> dict[str, Any]:
    frame = image.get("frame_id")
    return {
        "id": image["id"],
        "source": str(image["file_name"]) if frame is None else videos[image["video_id"]],
        "width": int(image["width"]),
        "height": int(image["height"]),
        "frame": frame,
        "time_s": image.get("time_s"),
    }


def _records(
    path: Path, images: list[dict[str, Any]], people: dict[Any, list[Any]], skeleton: Skeleton
) -> Iterator[Record]:
    for image in images:
        number = image.pop("id")
        try:
            yield Record(poses=_poses(people[number], skeleton), **image)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"{path}: image {number}: {error}") from error


def _poses(annotations: list[dict[str, Any]], skeleton: Skeleton) -> Poses:
    people = []
    for one in annotations:
        values = [one["keypoints"][0::3], one["keypoints"][1::3]]
        # Optional ones are last, so what is there are the first fields.
        values += [one[v.attribute] for v in JOINT_VALUES if v.attribute in one]
        joints = [dict(zip(JOINT_FIELDS, row, strict=False)) for row in zip(*values, strict=True)]
        people.append(
            {
                "id": one.get("track_id"),
                "score": one["score"],
                "box": dict(zip(BOX_FIELDS, one["bbox"], strict=True)),
                "keypoints": joints,
            }
        )
    return poses_from(people, skeleton)
