"""People walking past each other, made by arithmetic: known identities, joints and gaps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdpose_core.types import Floats, Poses

# A standing person of height 1, x to the right of the image, y down from the top of the head.
_STANDING = np.array(
    [
        *((0.0, 0.07), (0.015, 0.055), (-0.015, 0.055), (0.04, 0.065), (-0.04, 0.065)),
        *((0.1, 0.18), (-0.1, 0.18), (0.13, 0.33), (-0.13, 0.33), (0.14, 0.47), (-0.14, 0.47)),
        *((0.07, 0.5), (-0.07, 0.5), (0.07, 0.73), (-0.07, 0.73), (0.07, 0.96), (-0.07, 0.96)),
    ]
)
# How far each joint swings to and fro while walking, and on which beat.
_SWING = np.array([0, 0, 0, 0, 0, 0, 0, 0.04, 0.04, 0.1, 0.1, 0, 0, 0.07, 0.07, 0.17, 0.17])
_BEAT = np.array([0, 0, 0, 0, 0, 0, 0, 1, -1, 1, -1, 0, 0, -1, 1, -1, 1])
_STEPS_HZ = 0.9
_MARGIN = 0.03  # of the height, from the outer joints to the box


@dataclass(frozen=True, slots=True)
class Walker:
    """One person.

    Attributes:
        x: of the head at time 0, pixels.
        speed: pixels a second, negative to the left.
        height: pixels.
        feet: y of the feet, pixels; those further down are nearer and hide others.
        phase: of the step, in turns.
    """

    x: float
    speed: float
    height: float
    feet: float
    phase: float = 0.0

    def joints(self, time_s: float) -> NDArray[np.float64]:
        """``(17, 2)`` xy pixels."""
        walking = min(abs(self.speed) / self.height, 1.0)
        swing = _SWING * _BEAT * np.sin(2 * np.pi * (_STEPS_HZ * time_s + self.phase)) * walking
        points = _STANDING + np.stack([swing, np.zeros(17)], axis=1)
        corner = np.array([self.x + self.speed * time_s, self.feet - self.height])
        moved: NDArray[np.float64] = points * self.height + corner
        return moved


@dataclass(frozen=True, slots=True)
class Frame:
    """What a perfect pair of models with noise sees: ``who`` (N,) are indices of the walkers."""

    time_s: float
    poses: Poses
    who: NDArray[np.intp]


def crossing(rng: np.random.Generator, people: int = 3) -> list[Walker]:
    """People who meet in the middle of 640x480 pixels after about two seconds."""
    walkers = []
    for index in range(people):
        speed = rng.uniform(60, 160) * (1 if index % 2 else -1)
        height = rng.uniform(180, 240)
        middle = 320 + rng.uniform(-30, 30)
        walkers.append(
            Walker(middle - 2 * speed, speed, height, 400 + rng.uniform(-25, 25), rng.uniform())
        )
    return walkers


def walk(
    walkers: list[Walker],
    rng: np.random.Generator,
    *,
    fps: float = 30.0,
    seconds: float = 4.0,
    noise: float = 0.01,
    hidden: float = 0.6,
) -> Iterator[Frame]:
    """Frames in order.

    Args:
        noise: standard deviation of joints, in heights of the person; boxes follow the joints.
        hidden: a person of whose box this share lies behind nearer people is not found.
    """
    for number in range(round(seconds * fps)):
        time_s = number / fps
        truth = [walker.joints(time_s) for walker in walkers]
        boxes = np.stack([_box(t, w.height) for t, w in zip(truth, walkers, strict=True)])
        nearness = np.array([walker.feet for walker in walkers])
        seen = np.array([_behind(i, boxes, nearness) < hidden for i in range(len(walkers))])
        joints = [
            t + rng.normal(0, noise * w.height, t.shape)
            for t, w in zip(truth, walkers, strict=True)
        ]
        who = rng.permutation(np.flatnonzero(seen))  # detectors keep no order
        found = np.array([_box(joints[i], walkers[i].height) for i in who]).reshape(-1, 4)
        yield Frame(
            time_s,
            Poses(
                np.array([joints[i] for i in who], np.float32).reshape(-1, 17, 2),
                np.full((len(who), 17), 0.9, np.float32),
                found.astype(np.float32),
                np.full(len(who), 0.8, np.float32),
            ),
            who,
        )


def _box(joints: NDArray[np.float64], height: float) -> Floats:
    margin = _MARGIN * height
    return np.concatenate([joints.min(axis=0) - margin, joints.max(axis=0) + margin])


def _behind(index: int, boxes: Floats, nearness: NDArray[np.float64]) -> float:
    """Share of a box that lies behind the nearer one that hides most of it."""
    x1, y1, x2, y2 = boxes[index]
    hidden = 0.0
    for other in np.flatnonzero(nearness > nearness[index]):
        width = min(x2, boxes[other, 2]) - max(x1, boxes[other, 0])
        height = min(y2, boxes[other, 3]) - max(y1, boxes[other, 1])
        if width > 0 and height > 0:
            hidden = max(hidden, float(width * height / ((x2 - x1) * (y2 - y1))))
    return hidden
