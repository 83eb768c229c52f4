"""People in the shapes of other libraries: rows for data frames, COCO, supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sdpose_core.io.people import (
    PIXEL_DIGITS,
    SCORE_DIGITS,
    box_values,
    ids_of,
    joint_values_of,
    people_json,
    rounded,
)
from sdpose_core.types import Poses

if TYPE_CHECKING:
    from types import ModuleType

VISIBLE_SCORE: Final = 0.3
"""Keypoints from this score up are visible for COCO and supervision."""
_VISIBLE: Final = 2
_UNLABELLED: Final = 0


def joint_rows(poses: Poses) -> list[dict[str, Any]]:
    """One flat dictionary per keypoint, as ``Poses.to_rows`` describes it."""
    return [
        {"person": index, "id": person.get("id"), "person_score": person["score"], **joint}
        for index, person in enumerate(people_json(poses))
        for joint in person["keypoints"]
    ]


def coco_annotations(
    poses: Poses,
    image_id: int,
    first_id: int = 1,
    *,
    min_keypoint_score: float = VISIBLE_SCORE,
    size: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:
    """One annotation per person, as ``Poses.to_coco`` describes it."""
    flags = _flags(poses, min_keypoint_score, size)
    annotations = []
    for index, (box, one) in enumerate(zip(box_values(poses), ids_of(poses), strict=True)):
        bbox = rounded(box, PIXEL_DIGITS)
        marked = zip(rounded(poses.keypoints[index], PIXEL_DIGITS), flags[index], strict=True)
        annotations.append(
            {
                "id": first_id + index,
                "image_id": image_id,
                "category_id": 1,
                "bbox": bbox,
                "area": rounded(bbox[2] * bbox[3], PIXEL_DIGITS),
                "iscrowd": 0,
                "num_keypoints": int(np.count_nonzero(flags[index])),
                "keypoints": [number for (x, y), v in marked for number in (x, y, int(v))],
                **{
                    value.attribute: rounded(getattr(poses, value.attribute)[index], value.digits)
                    for value in joint_values_of(poses)
                },
                "score": rounded(poses.scores[index], SCORE_DIGITS),
                **({"track_id": one} if one else {}),
            }
        )
    return annotations


def _flags(poses: Poses, minimum: float, size: tuple[int, int] | None) -> NDArray[np.int64]:
    """v of each joint, ``(N, K)``; the image ends at the centres of its outermost pixels."""
    seen = poses.keypoint_scores >= minimum
    if size is not None:
        x, y = np.moveaxis(poses.keypoints, 2, 0)
        width, height = size
        seen = seen & (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    return np.where(seen, _VISIBLE, _UNLABELLED)


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
