"""Students through PyTorch, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdpose_core.hardware.choice import TORCH_PRECISIONS, torch_precision
from sdpose_core.hardware.cuda_graphs import GraphedCalls
from sdpose_core.model import JointReader, Student


class TorchBackend:
    """A ``PoseBackend`` that calls the module itself.

    Args:
        student: In float32; it is moved and converted, so pass one that nothing else uses.
        device: Such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        precision: As of ``choice.torch_precision``.
        graphs: On a GPU, replay every batch size from a CUDA graph (``cuda_graphs``).
    """

    name = "torch"

    def __init__(
        self,
        student: Student,
        device: str | torch.device = "cpu",
        precision: str = "auto",
        *,
        graphs: bool = True,
    ) -> None:
        self.device = torch.device(device)
        gpu = self.device.type != "cpu"
        self.precision = torch_precision(precision, self.device)
        self.batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64) if gpu else (1, 2, 4, 8)
        self.pads = gpu
        self.config = student.config
        self._student = student.eval().to(
            device=self.device,
            dtype=TORCH_PRECISIONS[self.precision],
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self._graphs = gpu and graphs
        self._answer = GraphedCalls(self._compute) if self._graphs else self._compute

    @torch.inference_mode()
    def run(self, crops: Tensor, cycles: int | None = None) -> Tensor:
        """See ``PoseBackend.run``."""
        return self._answer(crops.contiguous(memory_format=torch.channels_last), cycles)

    def _compute(self, crops: Tensor, cycles: int | None) -> Tensor:
        heatmaps: Tensor = self._student(crops, cycles)
        return heatmaps.float()

    def reader(self, module: JointReader) -> Callable[[Tensor], Tensor]:
        """See ``PoseBackend.reader``."""
        module = module.to(self.device)

        @torch.inference_mode()
        def read(heatmaps: Tensor) -> Tensor:
            joints: Tensor = module(heatmaps)
            return joints

        return GraphedCalls(read) if self._graphs else read
