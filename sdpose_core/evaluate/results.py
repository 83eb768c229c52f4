"""From poses to COCO results, by the published code's protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdpose_core.data.coco import CocoImage
from sdpose_core.data.coco_file import PERSON, CocoFile, id_text
from sdpose_core.types import Detections, Poses
from sdpose_core.vision.geometry import regions_from_boxes
from sdpose_core.vision.oks import oks_nms

NMS_THRESHOLD = 0.9


class PoseSource(Protocol):
    """Anything that returns the poses of one image: a local estimator or a remote server."""

    def __call__(self, image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        """Poses in pixels of the image; ``boxes`` (N, 4) xyxy or None to detect people."""
        ...


@dataclass(frozen=True)
class ImagePoses:
    """The poses found in one image, and whether they are in the order of its people."""

    image: CocoImage
    poses: Poses
    given: bool


def run(
    images: Iterable[CocoImage],
    source: PoseSource,
    *,
    given_boxes: bool,
    boxes: Mapping[int, Detections] | None = None,
    on_image: Callable[[int], None] | None = None,
) -> list[ImagePoses]:
    """Run ``source`` on every image.

    With ``given_boxes`` the annotated boxes of people with a labelled joint are used; otherwise
    ``boxes`` by image id if given (``read_boxes``), or the source detects people. Images without
    people count, as in the published protocol. Raises ``ValueError`` when the source does not
    return one pose per box.
    """
    found = []
    for image in images:
        if given_boxes:
            annotated = [person.box for person in image.people]
            poses = _answer(source, image, np.stack(annotated)) if annotated else Poses.empty()
        elif boxes is not None:
            poses = _of_boxes(source, image, boxes.get(image.image_id, Detections.empty()))
        else:
            poses = source(image, None)
        found.append(ImagePoses(image, poses, given_boxes))
        if on_image is not None:
            on_image(len(found))
    return found


def _of_boxes(source: PoseSource, image: CocoImage, known: Detections) -> Poses:
    """One pose per box but for copies, by the published protocol: OKS at 0.9 on the padded box."""
    if not len(known):
        return Poses.empty()
    poses = _answer(source, image, known.boxes)
    poses = replace(poses, scores=known.scores * poses.scores)
    areas = regions_from_boxes(poses.boxes).sizes.astype(np.float64).prod(axis=1)
    kept = oks_nms(
        poses.keypoints.astype(np.float64),
        poses.scores.astype(np.float64),
        areas,
        poses.skeleton.sigmas,
        NMS_THRESHOLD,
    )
    return poses.select(kept)


def _answer(source: PoseSource, image: CocoImage, boxes: NDArray[np.float32]) -> Poses:
    """One pose per box, or they cannot be matched."""
    poses = source(image, boxes)
    if len(poses) != len(boxes):
        raise ValueError(f"{image.path.name}: got {len(poses)} poses for {len(boxes)} boxes")
    return poses


def read_boxes(path: Path, truth: CocoFile, minimum: float = 0.0) -> dict[int, Detections]:
    """Person boxes of a COCO detection results file by image id.

    The published results use such a file (person AP 56.4).

    Args:
        truth: The file that its ids of images and of the category refer to.
        minimum: Boxes of a lower score are left out.

    Raises:
        ValueError: it is not a list of COCO detections, or not of these images.
    """
    rows: dict[int, list[tuple[list[float], float]]] = {}
    elsewhere = 0
    try:
        for row in json.loads(path.read_text()):
            box, score = [float(value) for value in row["bbox"]], float(row["score"])
            x, y, width, height = box
            if not np.isfinite([*box, score]).all():
                raise ValueError(f"a number is not finite: {row}")
            if row["category_id"] != truth.category or score < minimum or min(width, height) <= 0:
                continue
            number = truth.numbers.get(id_text(row["image_id"]))
            if number is None:
                elsewhere += 1
            else:
                rows.setdefault(number, []).append(([x, y, x + width, y + height], score))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a file of COCO detections ({error})") from error
    if elsewhere and not rows:
        raise ValueError(f"{path}: its images are not those of {truth.path}")
    return {
        image_id: Detections(
            np.array([box for box, _ in found], np.float32),
            np.array([score for _, score in found], np.float32),
        ).select()
        for image_id, found in rows.items()
    }


def coco_results(found: Sequence[ImagePoses]) -> list[dict[str, Any]]:
    """COCO keypoint results of these people, ranked by their scores."""
    rows = []
    for entry in found:
        poses = entry.poses
        joints = np.concatenate([poses.keypoints, poses.keypoint_scores[..., None]], axis=2)
        flat = joints.reshape(len(poses), 3 * len(poses.skeleton))
        for values, score in zip(flat, poses.scores, strict=True):
            rows.append(
                {
                    "image_id": entry.image.image_id,
                    "category_id": PERSON,
                    "keypoints": [round(float(v), 3) for v in values],
                    "score": float(score),
                }
            )
    return rows
