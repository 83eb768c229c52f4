"""What the estimator requires of a backend."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class PoseBackend(Protocol):
    """A student, ready to run on one device.

    Attributes:
        name: ``"torch"`` or ``"openvino"``.
        device: Where crops are expected and heatmaps are left.
        precision: The precision it computes in: ``"fp32"``, ``"fp16"`` or ``"bf16"``.
        batch_sizes: Batch sizes that it is warmed up for, ascending from 1.
        pads: Whether a remainder is cheaper padded to the next size (a GPU) than run in smaller
            parts (a CPU, whose time grows with every crop).
    """

    name: str
    device: torch.device
    precision: str
    batch_sizes: tuple[int, ...]
    pads: bool

    def run(self, crops: Tensor, cycles: int | None = None) -> Tensor:
        """Heatmaps of one batch.

        Args:
            crops: ``(B, 3, 256, 192)`` RGB 0..255, uint8 or float32, on ``device``.
            cycles: How often the transformer runs; None is the student's own number.

        Returns:
            ``(B, 17, 64, 48)`` float32 on ``device``, peaks of about 1 where the student is sure.
        """
        ...
