"""Readings of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from service.telemetry.metrics import GpuReading


def gpu_reader(device: str) -> Callable[[], Iterable[GpuReading]]:
    """A function that reads memory and utilisation of `cuda` or `cuda:N` at each call.

    What the GPU does not report is None: utilisation comes through NVML, which has none for a slice
    of a GPU (MIG), for some virtual GPUs and under WSL. The other metrics must not suffer from it.
    """
    import torch

    index = torch.device(device).index or 0
    faults = _nvml_faults()

    def read() -> Iterable[GpuReading]:
        used = total = busy = None
        with suppress(RuntimeError):  # of CUDA, such as a device that fell off the bus
            free, size = torch.cuda.mem_get_info(index)
            used, total = float(size - free), float(size)
        with suppress(*faults):
            busy = torch.cuda.utilization(index) / 100
        yield GpuReading(index, used, total, busy)

    return read


def _nvml_faults() -> tuple[type[Exception], ...]:
    """Errors that NVML may raise: its own is not a RuntimeError, and may not be installed."""
    try:
        from pynvml import NVMLError
    except ModuleNotFoundError:
        return (ModuleNotFoundError, RuntimeError)
    return (RuntimeError, NVMLError)
