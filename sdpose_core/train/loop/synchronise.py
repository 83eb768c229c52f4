"""Elapsed time and stop request, the same in all processes of a run."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final

import torch
from lightning_fabric import Fabric
from torch import Tensor

SECONDS_BETWEEN: Final = 1.0
MAX_STEPS_BETWEEN: Final = 50


class ComputeClock:
    """Adds up step durations; an outlier counts as a typical one.

    A process that was suspended, or a laptop that slept, shows one very long step: a step longer
    than five times the median of the last 15 counts as the median.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._recent: deque[float] = deque(maxlen=15)

    def add(self, duration: float) -> None:
        """Count one step of ``duration`` seconds."""
        if len(self._recent) >= 5:
            usual = statistics.median(self._recent)
            if duration > 5 * usual:
                duration = usual
        self._recent.append(duration)
        self.seconds += duration


class Agreement:
    """The first process's clock and any process's stop request, the same in every process.

    The processes communicate about once a second, not at every step, which would make each wait for
    the slowest. In between, time advances everywhere at the agreed pace, so that learning rates and
    ends of stages never differ. A single process follows its clock directly.
    """

    def __init__(self, fabric: Fabric, clock: ComputeClock) -> None:
        self._fabric = fabric
        self._clock = clock
        self._agreed = clock.seconds
        self._pace = 0.0
        self._since = self._until = 0
        self.seconds = clock.seconds
        self.stopping = False

    def before_step(self, stop: bool) -> None:
        """Set ``seconds`` and ``stopping``; ``stop``: this process was requested to stop.

        Every process calls this before every step.
        """
        if self._fabric.world_size == 1:
            self.seconds, self.stopping = self._clock.seconds, stop
            return
        if self._since >= self._until:
            self._exchange(stop)
        self.seconds = self._agreed + self._since * self._pace
        self._since += 1

    def _exchange(self, stop: bool) -> None:
        pace = (self._clock.seconds - self._agreed) / self._since if self._since else 0.0
        first = self._fabric.is_global_zero
        sent = torch.tensor(
            [float(stop), self._clock.seconds * first, pace * first],
            dtype=torch.float64,
            device=self._fabric.device,
        )
        received = self._fabric.all_reduce(sent, reduce_op="sum")
        assert isinstance(received, Tensor)
        stops, self._agreed, self._pace = received.tolist()
        self.stopping = stops > 0
        self._clock.seconds = self._agreed
        self._since = 0
        steps = SECONDS_BETWEEN / self._pace if self._pace > 0 else 1.0
        self._until = round(max(1.0, min(steps, MAX_STEPS_BETWEEN)))
