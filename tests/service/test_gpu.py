"""What /metrics says of a GPU that does not tell everything."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from service.telemetry.gpu import gpu_reader
from service.telemetry.metrics import GpuReading, Metrics


class _Gpu:
    """Stands in for CUDA and NVML: values, or the error that they raise."""

    def __init__(self, memory: tuple[int, int] | Exception, percent: int | Exception) -> None:
        self._memory, self._percent = memory, percent
        self.asked: list[int] = []

    def mem_get_info(self, index: int) -> tuple[int, int]:
        self.asked.append(index)
        if isinstance(self._memory, Exception):
            raise self._memory
        return self._memory

    def utilization(self, index: int) -> int:
        self.asked.append(index)
        if isinstance(self._percent, Exception):
            raise self._percent
        return self._percent


Plug = Callable[[tuple[int, int] | Exception, int | Exception], _Gpu]


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Plug:
    def put_in(memory: tuple[int, int] | Exception, percent: int | Exception) -> _Gpu:
        gpu = _Gpu(memory, percent)
        monkeypatch.setattr(torch.cuda, "mem_get_info", gpu.mem_get_info)
        monkeypatch.setattr(torch.cuda, "utilization", gpu.utilization)
        return gpu

    return put_in


def _nvml_error() -> Exception:
    pynvml = pytest.importorskip("pynvml", reason="comes with PyTorch's or ultralytics' packages")
    error: Exception = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return error


def _page(device: str = "cuda") -> str:
    metrics = Metrics()
    metrics.watch_gpu(gpu_reader(device))
    return metrics.exposition().decode()


def test_memory_and_utilisation_of_the_named_gpu(plug: Plug) -> None:
    gpu = plug((1000, 8000), 25)
    assert list(gpu_reader("cuda:2")()) == [GpuReading(2, 7000.0, 8000.0, 0.25)]
    assert gpu.asked == [2, 2]


def test_a_slice_without_utilisation_still_tells_its_memory(plug: Plug) -> None:
    plug((1000, 8000), _nvml_error())
    page = _page()
    assert 'sdpose_gpu_memory_used_bytes{gpu="0"} 7000.0' in page
    assert 'sdpose_gpu_memory_bytes{gpu="0"} 8000.0' in page
    assert "sdpose_gpu_utilisation_ratio{" not in page


def test_a_lost_gpu_leaves_the_other_metrics_alone(plug: Plug) -> None:
    plug(RuntimeError("CUDA error: unspecified launch failure"), RuntimeError("no driver"))
    page = _page()
    assert "sdpose_gpu_memory_used_bytes{" not in page
    assert "process_resident_memory_bytes" in page


def test_without_nvml_installed(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    plug((1000, 8000), ModuleNotFoundError("nvidia-ml-py does not seem to be installed"))
    assert list(gpu_reader("cuda")()) == [GpuReading(0, 7000.0, 8000.0, None)]


def test_gpu_is_read_anew_at_every_scrape() -> None:
    metrics = Metrics()
    used = iter([1.0e9, 2.0e9, 3.0e9])
    metrics.watch_gpu(lambda: [GpuReading(0, next(used), 8e9, 0.5)])
    next_text = metrics.exposition().decode()
    later_text = metrics.exposition().decode()
    assert 'sdpose_gpu_memory_bytes{gpu="0"} 8e+09' in next_text
    assert 'sdpose_gpu_utilisation_ratio{gpu="0"} 0.5' in next_text
    first, second = (
        float(line.split()[-1])
        for text in (next_text, later_text)
        for line in text.splitlines()
        if line.startswith("sdpose_gpu_memory_used_bytes{")
    )
    assert second > first
