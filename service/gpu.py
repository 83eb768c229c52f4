"""What a GPU says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from service.metrics import GpuReading


def gpu_reader(device: str) -> Callable[[], Iterable[GpuReading]]:
    """A function that reads memory and utilisation of `cuda` or `cuda:N` anew at each call.

    Utilisation comes through NVML; it is left at NaN where that cannot be had.
    """
    import torch

    index = torch.device(device).index or 0

    def read() -> Iterable[GpuReading]:
        free, total = torch.cuda.mem_get_info(index)
        try:
            busy = torch.cuda.utilization(index) / 100
        except (ModuleNotFoundError, RuntimeError):
            busy = float("nan")
        yield GpuReading(index, float(total - free), float(total), busy)

    return read
