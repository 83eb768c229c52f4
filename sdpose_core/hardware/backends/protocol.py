"""Protocol of a backend of the estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sdpose_core.model import JointReader


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
            ``(B, K, 64, 48)`` float32 on ``device``, peaks of about 1 where the student is sure.
        """
        ...

    def reader(self, module: JointReader) -> Callable[[Tensor], Tensor]:
        """The decoding of heatmaps on ``device`` in this backend's way; for any thread.

        On a GPU the launches of its some forty small operations would take longer than the work; on
        a CPU PyTorch's helper threads spin for milliseconds on the cores that the next inference
        needs.
        """
        ...
