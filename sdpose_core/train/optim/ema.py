"""An exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages parameters and float buffers of a module; integers are copied.

    The decay grows with the number of updates, min(decay, (1 + n) / (10 + n)), so that the average
    forgets its start quickly.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"expected a decay in 0..1, got {decay}")
        self.decay = decay
        self.updates = 0
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's current weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        held, present = [], []
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                held.append(self.values[key])
                present.append(value.detach())
            else:
                self.values[key].copy_(value)
        # In one call: a light network has hundreds of small tensors, and GPU launches are slow.
        torch._foreach_lerp_(held, present, 1 - decay)

    def state_dict(self) -> dict[str, Tensor | int]:
        """The averaged values and the number of updates."""
        return {**self.values, "__updates__": self.updates}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Restore what ``state_dict`` gave; raises ``KeyError`` for a missing value."""
        self.updates = int(state["__updates__"])
        for key, held in self.values.items():
            saved = state[key]
            assert isinstance(saved, Tensor)
            held.copy_(saved)
