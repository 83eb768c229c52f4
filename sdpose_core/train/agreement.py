"""What the processes of a run must decide alike: how late it is, and whether to stop."""

from __future__ import annotations

from typing import Final

import torch
from lightning_fabric import Fabric
from torch import Tensor

from sdpose_core.train.clock import ComputeClock

SECONDS_BETWEEN: Final = 1.0
MOST_STEPS_BETWEEN: Final = 50


class Agreement:
    """The first process's clock and anyone's wish to stop, the same in every process.

    The processes talk about once a second, not at every step, which would make each wait for the
    slowest. Until they talk again time goes on everywhere at the pace they agreed on, so that rates
    of learning and ends of stages never differ. One process alone follows its clock at once.
    """

    def __init__(self, fabric: Fabric, clock: ComputeClock) -> None:
        self._fabric = fabric
        self._clock = clock
        self._agreed = clock.seconds
        self._pace = 0.0
        self._since = self._until = 0
        self.seconds = clock.seconds
        self.stopping = False

    def before_step(self, wish: bool) -> None:
        """Set ``seconds`` and ``stopping``; ``wish``: this process was asked to stop.

        Every process calls this before every step.
        """
        if self._fabric.world_size == 1:
            self.seconds, self.stopping = self._clock.seconds, wish
            return
        if self._since >= self._until:
            self._talk(wish)
        self.seconds = self._agreed + self._since * self._pace
        self._since += 1

    def _talk(self, wish: bool) -> None:
        pace = (self._clock.seconds - self._agreed) / self._since if self._since else 0.0
        first = self._fabric.is_global_zero
        said = torch.tensor(
            [float(wish), self._clock.seconds * first, pace * first],
            dtype=torch.float64,
            device=self._fabric.device,
        )
        heard = self._fabric.all_reduce(said, reduce_op="sum")
        assert isinstance(heard, Tensor)
        wishes, self._agreed, self._pace = heard.tolist()
        self.stopping = wishes > 0
        self._clock.seconds = self._agreed
        self._since = 0
        steps = SECONDS_BETWEEN / self._pace if self._pace > 0 else 1.0
        self._until = round(max(1.0, min(steps, MOST_STEPS_BETWEEN)))
