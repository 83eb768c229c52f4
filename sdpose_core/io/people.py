"""People as JSON values, the same in every answer and file, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdpose_core.skeleton import Skeleton
from sdpose_core.types import NO_ID, Poses

BOX_FIELDS: Final = ("x", "y", "width", "height")
"""A box in every format: its top left corner and its sides, pixels."""
PIXEL_DIGITS: Final = 3
SCORE_DIGITS: Final = 4


class JointValue(NamedTuple):
    """A number that every joint has beside its place.

    Attributes:
        name: in every format; COCO files have a list called ``attribute``.
        attribute: of ``Poses``, ``(N, K)``.
        digits: decimals in text.
        optional: None in ``Poses`` of some students; then JSON and COCO files leave it out, columns
            of CSV are empty, and those of Parquet null.
    """

    name: str
    attribute: str
    digits: int
    optional: bool = False


JOINT_VALUES: Final = (
    JointValue("score", "keypoint_scores", SCORE_DIGITS),
    JointValue("visibility", "visibility", SCORE_DIGITS, optional=True),
)
"""A further one is a line here: every format writes and reads it. Optional ones are last."""
JOINT_FIELDS: Final = ("x", "y", *(value.name for value in JOINT_VALUES))
"""A joint in every format; x and y are pixels."""
_NEEDED: Final = ("x", "y", *(value.name for value in JOINT_VALUES if not value.optional))
_NONE: Final = (None, "")


def people_json(poses: Poses, min_keypoint_score: float = 0.0) -> list[dict[str, Any]]:
    """Each person's box (x and y of its top left corner), score and named keypoints.

    Pixels are rounded to 1/1000, scores and visibility to 1/10000; keypoints whose score is below
    the minimum are left out. People with an id over time have it, keypoints with a visibility it.
    """
    names = poses.skeleton.keypoints
    fields = ("x", "y", *(value.name for value in joint_values_of(poses)))
    return [
        {
            "box": dict(zip(BOX_FIELDS, box, strict=True)),
            "score": score,
            **({"id": one} if one else {}),
            "keypoints": _named(names, fields, joints, above),
        }
        for box, score, one, joints, above in zip(
            rounded(box_values(poses), PIXEL_DIGITS),
            rounded(poses.scores, SCORE_DIGITS),
            ids_of(poses),
            rounded_joints(poses),
            poses.keypoint_scores >= min_keypoint_score,
            strict=True,
        )
    ]


def _named(
    names: Sequence[str],
    fields: Sequence[str],
    joints: Sequence[Sequence[float]],
    kept: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    # Field by field: three times as fast as a dict of each joint's fields, in the path of answers.
    found: list[dict[str, Any]] = [{"name": name} for name in names]
    for place, field in enumerate(fields):
        for joint, values in zip(found, joints, strict=True):
            joint[field] = values[place]
    return found if kept.all() else [*compress(found, kept)]


def poses_from(people: Sequence[Mapping[str, Any]], skeleton: Skeleton) -> Poses:
    """The poses of people as ``people_json`` gives them, with all keypoints in order.

    Raises:
        ValueError: a number is missing or none; the sentence names person and keypoint.
    """
    joints = np.full((len(people), len(skeleton), len(JOINT_FIELDS)), np.nan, np.float32)
    boxes = np.zeros((len(people), 4), np.float64)
    scores = np.zeros(len(people), np.float32)
    for index, person in enumerate(people):
        where = f"person {index}"
        if len(person["keypoints"]) != len(skeleton):
            raise ValueError(
                f"{where} has {len(person['keypoints'])} keypoints, expected {len(skeleton)}"
            )
        boxes[index] = _numbers(person["box"], BOX_FIELDS, f"{where}, box")
        (scores[index],) = _numbers(person, ("score",), where)
        for place, (name, joint) in enumerate(
            zip(skeleton.keypoints, person["keypoints"], strict=True)
        ):
            if joint.get("name", name) != name:
                raise ValueError(f"{where}: keypoint {joint['name']!r} in the place of {name!r}")
            known = [field for field in JOINT_FIELDS if joint.get(field) not in _NONE]
            needed = [*_NEEDED, *(field for field in known if field not in _NEEDED)]
            joints[index, place, : len(needed)] = _numbers(joint, needed, f"{where}, {name}")
    boxes[:, 2:] += boxes[:, :2]
    ids = [int(person.get("id") or NO_ID) for person in people]
    others: dict[str, Any] = {
        value.attribute: joints[..., place]
        for place, value in enumerate(JOINT_VALUES, 2)
        if not (value.optional and np.isnan(joints[..., place]).any())
    }
    return Poses(
        keypoints=joints[..., :2],
        boxes=boxes.astype(np.float32),
        scores=scores,
        ids=np.array(ids, np.int64) if any(ids) else None,
        skeleton=skeleton,
        **others,
    )


def _numbers(values: Mapping[str, Any], names: Sequence[str], where: str) -> list[float]:
    try:
        return [float(values[name]) for name in names]
    except KeyError as error:
        raise ValueError(f"{where}: no {error.args[0]}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {', '.join(names)} must be numbers ({error})") from error


def ids_of(poses: Poses) -> list[int]:
    """The id over time of each person, ``NO_ID`` without one."""
    ids: list[int] = [NO_ID] * len(poses) if poses.ids is None else poses.ids.tolist()
    return ids


def box_values(poses: Poses) -> NDArray[np.float64]:
    """``BOX_FIELDS`` of each person, ``(N, 4)``."""
    corners = poses.boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def joint_values_of(poses: Poses) -> list[JointValue]:
    """Those of ``JOINT_VALUES`` that these people have: the first ones."""
    return [value for value in JOINT_VALUES if getattr(poses, value.attribute) is not None]


def joint_values(poses: Poses) -> NDArray[np.float64]:
    """x, y and ``joint_values_of`` of each joint, ``(N, K, fields)``: first ``JOINT_FIELDS``."""
    others = [getattr(poses, value.attribute)[..., None] for value in joint_values_of(poses)]
    return np.concatenate([poses.keypoints, *others], axis=2, dtype=np.float64)


def rounded_joints(poses: Poses) -> list[list[list[float]]]:
    """``joint_values`` with the decimals of text."""
    values = joint_values(poses)
    values[..., :2] = values[..., :2].round(PIXEL_DIGITS)
    for place, value in enumerate(joint_values_of(poses), 2):
        values[..., place] = values[..., place].round(value.digits)
    nested: list[list[list[float]]] = values.tolist()
    return nested


def rounded(values: Any, digits: int) -> Any:
    """An array as nested lists of numbers with so many decimals."""
    return np.asarray(values, np.float64).round(digits).tolist()
