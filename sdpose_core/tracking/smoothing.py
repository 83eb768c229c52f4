"""Steady joints: the One-Euro filter in body scale.

Casiez, Roussel and Vogel, 1 Euro Filter, CHI 2012: a low pass whose cutoff frequency rises with
the speed, so that a still joint is calm and a fast one is not late. Speeds are in body sizes per
second, which makes near and far people feel alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdpose_core.types import Floats

Doubles = NDArray[np.float64]
_SHORTEST_S = 1e-6
"""Between two frames: speeds of shorter times would not be finite."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Values of the filter.

    Attributes:
        min_cutoff_hz: cutoff frequency of a joint at rest.
        beta: what the cutoff gains, in Hz, with a speed of one body size per second.
        speed_cutoff_hz: cutoff frequency of the speed itself.
        jump: a joint that leaves its body by more body sizes than this between two frames is held
            for one frame. With frames further apart than ``jump / max_speed`` seconds, more.
        max_speed: of a joint against its body, in body sizes per second.
    """

    min_cutoff_hz: float = 0.5
    beta: float = 12.0
    speed_cutoff_hz: float = 1.0
    jump: float = 0.3
    max_speed: float = 9.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")


class JointFilter:
    """The joints of one person. State is that of the frames before."""

    def __init__(self, config: Smoothing) -> None:
        self._config = config
        self._time_s = 0.0
        self._points: Doubles | None = None
        self._speeds: Doubles
        self._scale = 0.0
        self._held: NDArray[np.bool_]

    def __call__(self, points: Floats, scores: Floats, scale: float, time_s: float) -> Floats:
        """The steadied joints of one frame.

        Args:
            points: ``(K, 2)`` xy pixels.
            scores: ``(K,)`` in 0..1; an uncertain joint moves more slowly.
            scale: size of the body in pixels.
            time_s: of the frame; not after the frame before, it starts again.

        Returns:
            ``(K, 2)`` xy pixels.
        """
        seconds = time_s - self._time_s
        self._time_s = time_s
        new = points.astype(np.float64)
        if self._points is None or seconds <= 0:
            self._points, self._speeds, self._scale = new, np.zeros_like(new), scale
            self._held = np.zeros(len(new), bool)
            return points
        before = self._points
        seconds = max(seconds, _SHORTEST_S)
        calm = float(_share(self._config.min_cutoff_hz, seconds))
        self._scale += (scale - self._scale) * calm
        new = self._without_jumps(new, before, seconds)
        speeds = (new - before) / (seconds * max(self._scale, 1e-6))
        self._speeds += (speeds - self._speeds) * _share(self._config.speed_cutoff_hz, seconds)
        pace = np.linalg.norm(self._speeds, axis=1)
        cutoff = self._config.min_cutoff_hz + self._config.beta * pace
        trust = np.clip(scores.astype(np.float64) * 2, 0.1, 1)  # in full from a score of 0.5
        share = _share(cutoff * trust, seconds)[:, None]
        self._points = before + (new - before) * share
        return self._points.astype(np.float32)

    def _without_jumps(self, new: Doubles, before: Doubles, seconds: float) -> Doubles:
        """``new``, but where a joint left its body for the first time it goes with the body."""
        steps = new - before
        body = np.median(steps, axis=0)
        far = max(self._config.jump, self._config.max_speed * seconds) * self._scale
        jumped = np.linalg.norm(steps - body, axis=1) > far
        hold = jumped & ~self._held
        accepted = jumped & self._held  # it stayed there: the joint, not the estimate, was wrong
        self._held = hold
        before[accepted] = new[accepted]
        self._speeds[accepted] = 0
        return np.where(hold[:, None], before + body, new)


def _share(cutoff_hz: float | Doubles, seconds: float) -> Doubles:
    """How much of the new value a low pass with this cutoff takes over after so many seconds."""
    turn = 2 * np.pi * np.asarray(cutoff_hz) * seconds
    share: Doubles = turn / (turn + 1)
    return share
