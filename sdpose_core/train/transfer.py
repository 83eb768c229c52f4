"""A student for another skeleton: what its weights know of the joints carries over by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sdpose_core.model import Student
from sdpose_core.skeleton import Skeleton

BY_JOINT = {"backbone.final.weight": 0, "backbone.final.bias": 0, "keypoint_token": 1}
"""Tensors with one slice per joint, and the axis of the joints."""


def with_skeleton(student: Student, skeleton: Skeleton) -> tuple[Student, list[str]]:
    """A copy of ``student`` that finds the keypoints of ``skeleton``.

    Joints of the same name keep their weights, new ones begin as the mean of all; every other
    tensor is copied if it fits. The head of the joints' scores carries over if there is no new
    joint, that of people's scores if there is none less either.

    Returns:
        The student, and the names of the joints that carried over.
    """
    config = student.config
    found = config.skeleton.places(skeleton.keypoints)
    places = [place for place in found if place is not None]
    scored = len(places) == len(skeleton)
    ranked = scored and len(places) == config.keypoints
    made = Student(
        replace(
            config,
            skeleton=skeleton,
            score_width=config.score_width if scored else 0,
            person_width=config.person_width if ranked else 0,
        )
    )
    before, state = student.state_dict(), made.state_dict()
    for key, value in state.items():
        if key in BY_JOINT:
            state[key] = _by_joint(before[key], found, BY_JOINT[key])
        elif key in before and before[key].shape == value.shape:
            state[key] = before[key].clone()
    made.load_state_dict(state)
    count = config.keypoints
    if made.scores is not None and student.scores is not None:
        inputs = [*places, *(count + one for one in places)]
        inputs += [2 * count + 2 * one + axis for one in places for axis in (0, 1)]
        outputs = [*places, *(count + one for one in places)]
        _reorder(student.scores, made.scores, inputs, outputs)
    if made.people is not None and student.people is not None:
        inputs = [*places, *(count + one for one in places), *range(2 * count, 3 * count + 6)]
        _reorder(student.people, made.people, inputs, [0])
    names = zip(skeleton.keypoints, found, strict=True)
    return made.train(student.training), [name for name, place in names if place is not None]


def with_scores_of(student: Student, other: Student) -> Student:
    """A copy of ``student`` with the score heads of ``other``, of the same skeleton."""
    config = other.config
    made = Student(
        replace(student.config, score_width=config.score_width, person_width=config.person_width)
    )
    heads = {k: v for k, v in other.state_dict().items() if k.startswith(("scores.", "people."))}
    made.load_state_dict({**heads, **student.state_dict()})
    return made.train(student.training)


@torch.no_grad()
def move_towards(student: Student, start: Student, share: float, new: Sequence[str]) -> None:
    """Move weights in place by ``share`` of the way to those of ``start``, but for those of the
    keypoints ``new``.

    Between a start and what fine-tuning made of it lie students that keep more of what the start
    knows beyond the new labels (arXiv 2109.01903).
    """
    rows = [i for i, name in enumerate(student.config.skeleton.keypoints) if name in new]
    begun = start.state_dict()
    for key, value in student.state_dict().items():
        if not value.is_floating_point():
            continue
        own = value.clone()
        value.lerp_(begun[key].to(value.device), share)
        if key in BY_JOINT and rows:
            at = torch.tensor(rows, device=value.device)
            value.index_copy_(BY_JOINT[key], at, own.index_select(BY_JOINT[key], at))


def _by_joint(tensor: Tensor, places: list[int | None], axis: int) -> Tensor:
    mean = tensor.mean(dim=axis)
    slices = [mean if place is None else tensor.select(axis, place) for place in places]
    return torch.stack(slices, dim=axis)


def _reorder(
    before: nn.Module, made: nn.Module, inputs: Sequence[int], outputs: Sequence[int]
) -> None:
    """The perceptron of a head with some of its inputs and outputs, in this order; an input that is
    left out counts as at its mean."""
    state = before.state_dict()
    made.load_state_dict(
        {
            "mean": state["mean"][inputs],
            "scale": state["scale"][inputs],
            "layers.0.weight": state["layers.0.weight"][:, inputs],
            "layers.0.bias": state["layers.0.bias"],
            "layers.2.weight": state["layers.2.weight"][outputs],
            "layers.2.bias": state["layers.2.bias"][outputs],
        }
    )
