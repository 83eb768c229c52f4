"""People in the shapes of other libraries: rows for data frames, COCO, supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sdpose_core.io.people import people_json, rounded
from sdpose_core.types import Poses

if TYPE_CHECKING:
    from types import ModuleType

VISIBLE_SCORE: Final = 0.3
"""Keypoints from this score up are visible for COCO and supervision."""


def joint_rows(poses: Poses) -> list[dict[str, Any]]:
    """One flat dictionary per keypoint, as ``Poses.to_rows`` describes it."""
    return [
        {"person": index, "id": person.get("id"), "person_score": person["score"], **joint}
        for index, person in enumerate(people_json(poses))
        for joint in person["keypoints"]
    ]


def coco_annotations(poses: Poses, image_id: int, first_id: int = 1) -> list[dict[str, Any]]:
    """One annotation per person, as ``Poses.to_coco`` describes it."""
    annotations = []
    for index, box in enumerate(poses.boxes.tolist()):
        x1, y1, x2, y2 = box
        visible = np.where(poses.keypoint_scores[index] >= VISIBLE_SCORE, 2, 1).tolist()
        points = zip(rounded(poses.keypoints[index], 3), visible, strict=True)
        annotation: dict[str, Any] = {
            "id": first_id + index,
            "image_id": image_id,
            "category_id": 1,
            "bbox": rounded((x1, y1, x2 - x1, y2 - y1), 3),
            "area": rounded((x2 - x1) * (y2 - y1), 3),
            "iscrowd": 0,
            "num_keypoints": len(poses.skeleton),
            "keypoints": [number for (x, y), flag in points for number in (x, y, flag)],
            "keypoint_scores": rounded(poses.keypoint_scores[index], 4),
        }
        if poses.visibility is not None:
            annotation["visibility"] = rounded(poses.visibility[index], 4)
        annotation["score"] = rounded(poses.scores[index], 4)
        if poses.ids is not None and poses.ids[index]:
            annotation["track_id"] = int(poses.ids[index])
        annotations.append(annotation)
    return annotations


def supervision_key_points(poses: Poses) -> Any:
    """A ``supervision.KeyPoints``, as ``Poses.to_supervision`` describes it."""
    data = {} if poses.visibility is None else {"visibility": poses.visibility}
    return _supervision().KeyPoints(
        xy=poses.keypoints,
        class_id=np.zeros(len(poses), int),
        keypoint_confidence=poses.keypoint_scores,
        detection_confidence=poses.scores,
        visible=poses.keypoint_scores >= VISIBLE_SCORE,
        data=data,
    )


def supervision_detections(poses: Poses) -> Any:
    """A ``supervision.Detections``, as ``Poses.to_supervision_detections`` describes it."""
    return _supervision().Detections(
        xyxy=poses.boxes,
        confidence=poses.scores,
        class_id=np.zeros(len(poses), int),
        tracker_id=poses.ids,
    )


def _supervision() -> ModuleType:
    try:
        import supervision
    except ModuleNotFoundError as error:
        if error.name != "supervision":
            raise
        message = "this needs the package supervision: pip install 'supervision>=0.29'"
        raise ModuleNotFoundError(message, name="supervision") from None
    module: ModuleType = supervision
    return module
