"""Metrics of the service, in one Prometheus registry that one process owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

from service.telemetry.observers import SHED_REASONS, ShedReason

_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_PEOPLE = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55)


@dataclass(frozen=True, slots=True)
class GpuReading:
    """Memory in bytes and utilisation in 0..1 of one GPU; None is not reported."""

    index: int
    memory_used: float | None
    memory_total: float | None
    utilisation: float | None


class CameraReading(Protocol):
    """Metrics of one camera: whether its frames come, and its counts since it was added."""

    @property
    def name(self) -> str: ...
    @property
    def live(self) -> bool: ...
    @property
    def frames(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def reconnects(self) -> int: ...
    @property
    def watchers(self) -> int: ...


class Metrics:
    """The metrics by name; also the observer of every queue (`service.telemetry.observers`)."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "sdpose_requests_total",
            "Requests by front end and outcome (ok or an error code).",
            ["api", "outcome"],
            registry=registry,
        )
        self.key_requests = Counter(
            "sdpose_key_requests_total",
            "Requests by the name of the key that was shown, and outcome.",
            ["key", "outcome"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "sdpose_request_seconds",
            "Time from request to answer.",
            ["api"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "sdpose_stage_seconds",
            "Working time in decode, detect, crop, pose or keypoints, without waiting. On a GPU "
            "pose ends when its work is handed over, and keypoints waits for it.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_depth_gauge = Gauge(
            "sdpose_queue_depth",
            "Images (decode, detect, crop) or crops (pose) that wait.",
            ["stage"],
            registry=registry,
        )
        self.queue_wait_seconds = Histogram(
            "sdpose_queue_wait_seconds",
            "Wait of one item until a thread began it.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "sdpose_batch_size",
            "Images (detect) or crops (pose) in a batch.",
            ["stage"],
            buckets=_SIZES,
            registry=registry,
        )
        self.batch_dispatch = Counter(
            "sdpose_batch_dispatch_total",
            "Batches by why they left: full, wait, idle or drain.",
            ["stage", "reason"],
            registry=registry,
        )
        self.shed_total = Counter(
            "sdpose_shed_total",
            f"Work dropped: {', '.join(SHED_REASONS)}.",
            ["reason"],
            registry=registry,
        )
        self.people_per_image = Histogram(
            "sdpose_people_per_image",
            "People answered per image.",
            buckets=_PEOPLE,
            registry=registry,
        )
        self.streams_active = Gauge(
            "sdpose_streams_active", "Open pose streams.", registry=registry
        )
        self.stream_frames = Counter(
            "sdpose_stream_frames_total",
            "Frames of streams by outcome: ok, dropped, client_gone or an error code.",
            ["outcome"],
            registry=registry,
        )
        self.model_info = Gauge(
            "sdpose_model_info",
            "Always 1; the labels name what is loaded.",
            ["student", "detector", "backend", "device"],
            registry=registry,
        )
        self.ready = Gauge(
            "sdpose_ready",
            "1 while new work is admitted, as /readyz reports, else 0.",
            registry=registry,
        )
        self.tasks = Gauge(
            "sdpose_tasks", "Tasks of the event loop, for requests and streams.", registry=registry
        )
        self.tasks.set_function(_tasks)
        ProcessCollector(registry=registry)

    def queue_depth(self, stage: str, depth: int) -> None:
        """The summed cost that now waits at a stage."""
        self.queue_depth_gauge.labels(stage).set(depth)

    def queue_wait(self, stage: str, seconds: float) -> None:
        """One item left the queue of a stage."""
        self.queue_wait_seconds.labels(stage).observe(seconds)

    def dispatched(self, stage: str, cost: int, reason: str) -> None:
        """A batch of `cost` left for a stage."""
        self.batch_size.labels(stage).observe(cost)
        self.batch_dispatch.labels(stage, reason).inc()

    def shed(self, stage: str, reason: ShedReason) -> None:
        """Work was dropped at a stage."""
        self.shed_total.labels(reason).inc()

    def request(self, api: str, outcome: str, seconds: float, key: str | None) -> None:
        """One request was answered; `key` is the name of the key it showed."""
        if key is not None:
            self.key_requests.labels(key, outcome).inc()
        self.requests.labels(api, outcome).inc()
        self.request_seconds.labels(api).observe(seconds)

    def watch_gpu(self, read: Callable[[], Iterable[GpuReading]]) -> None:
        """Adds GPU memory and utilisation, read at every scrape."""
        self.registry.register(_GpuCollector(read))

    def watch_cameras(self, read: Callable[[], Iterable[CameraReading]]) -> None:
        """Adds the cameras, read at every scrape: those that are gone leave no lines behind."""
        self.registry.register(_CameraCollector(read))

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)


class _GpuCollector:
    def __init__(self, read: Callable[[], Iterable[GpuReading]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        used = GaugeMetricFamily("sdpose_gpu_memory_used_bytes", "GPU memory used.", labels=["gpu"])
        total = GaugeMetricFamily("sdpose_gpu_memory_bytes", "GPU memory.", labels=["gpu"])
        busy = GaugeMetricFamily(
            "sdpose_gpu_utilisation_ratio", "Share of time the GPU was busy.", labels=["gpu"]
        )
        for gpu in self._read():
            for family, value in (
                (used, gpu.memory_used),
                (total, gpu.memory_total),
                (busy, gpu.utilisation),
            ):
                if value is not None:
                    family.add_metric([str(gpu.index)], value)
        return [used, total, busy]


class _CameraCollector:
    def __init__(self, read: Callable[[], Iterable[CameraReading]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        label = ["camera"]
        up = GaugeMetricFamily("sdpose_camera_up", "1 while its frames come, else 0.", labels=label)
        watchers = GaugeMetricFamily(
            "sdpose_camera_watchers", "Clients that watch it.", labels=label
        )
        frames = CounterMetricFamily(
            "sdpose_camera_frames",
            "Its frames by outcome: ok, dropped or error.",
            labels=["camera", "outcome"],
        )
        reconnects = CounterMetricFamily(
            "sdpose_camera_reconnects", "How often its broken line came back.", labels=label
        )
        for camera in self._read():
            name = camera.name
            up.add_metric([name], camera.live)
            watchers.add_metric([name], camera.watchers)
            reconnects.add_metric([name], camera.reconnects)
            frames.add_metric([name, "ok"], camera.frames - camera.errors)
            frames.add_metric([name, "error"], camera.errors)
            frames.add_metric([name, "dropped"], camera.dropped)
        return [up, watchers, frames, reconnects]


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # read outside of a loop
        return 0
