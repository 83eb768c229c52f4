"""A student for another skeleton: what its weights know of the joints carries over by name."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sdpose_core.model import Student
from sdpose_core.skeleton import Skeleton

BY_JOINT = {"backbone.final.weight": 0, "backbone.final.bias": 0, "keypoint_token": 1}
"""Tensors with one slice per joint, and the axis of the joints."""


def with_skeleton(student: Student, skeleton: Skeleton) -> tuple[Student, list[str]]:
    """A copy of ``student`` that finds the keypoints of ``skeleton``, without score heads.

    Joints of the same name keep their weights, new ones begin as the mean of all; every other
    tensor is copied if it fits.

    Returns:
        The student, and the names of the joints that carried over.
    """
    config = replace(student.config, skeleton=skeleton, score_width=0, person_width=0)
    made = Student(config)
    before, state = student.state_dict(), made.state_dict()
    places = student.config.skeleton.places(skeleton.keypoints)
    for key, value in state.items():
        if key in BY_JOINT:
            state[key] = _by_joint(before[key], places, BY_JOINT[key])
        elif key in before and before[key].shape == value.shape:
            state[key] = before[key].clone()
    made.load_state_dict(state)
    names = zip(skeleton.keypoints, places, strict=True)
    return made.train(student.training), [name for name, place in names if place is not None]


def _by_joint(tensor: Tensor, places: list[int | None], axis: int) -> Tensor:
    mean = tensor.mean(dim=axis)
    slices = [mean if place is None else tensor.select(axis, place) for place in places]
    return torch.stack(slices, dim=axis)
