"""People as JSON values, the same in every answer and file."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdpose_core.types import Poses


def people_json(poses: Poses, min_keypoint_score: float = 0.0) -> list[dict[str, Any]]:
    """Each person's box (x and y of its top left corner), score and named keypoints.

    Pixels are rounded to 1/1000, scores and visibility to 1/10000; keypoints whose score is below
    the minimum are left out. People with an id over time have it, keypoints with a visibility it.
    """
    names = poses.skeleton.keypoints
    visibility: list[list[float]] | list[list[None]] = (
        [[None] * len(names)] * len(poses)
        if poses.visibility is None
        else rounded(poses.visibility, 4)
    )
    ids = [0] * len(poses) if poses.ids is None else poses.ids.tolist()
    corners = poses.boxes.astype(np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {
            "box": dict(zip(("x", "y", "width", "height"), box, strict=True)),
            "score": score,
            **({"id": one} if one else {}),
            "keypoints": [
                {
                    "name": name,
                    "x": x,
                    "y": y,
                    "score": keypoint_score,
                    **({} if seen is None else {"visibility": seen}),
                }
                for name, (x, y), keypoint_score, seen, kept in zip(
                    names, points, keypoint_scores, visible, above, strict=True
                )
                if kept
            ],
        }
        for box, score, one, points, keypoint_scores, visible, above in zip(
            rounded(boxes, 3),
            rounded(poses.scores, 4),
            ids,
            rounded(poses.keypoints, 3),
            rounded(poses.keypoint_scores, 4),
            visibility,
            poses.keypoint_scores >= min_keypoint_score,
            strict=True,
        )
    ]


def rounded(values: Any, digits: int) -> Any:
    """An array as nested lists of numbers with so many decimals."""
    return np.asarray(values, np.float64).round(digits).tolist()
