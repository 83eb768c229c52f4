"""What the metrics page says beyond what requests do to it."""

from __future__ import annotations

from service.telemetry.metrics import GpuReading, Metrics


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
