"""Loaded models: from settings to a warm pipeline, and its end when others replace it."""

from __future__ import annotations

import asyncio
import gc
import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import structlog

from sdpose_core.vision.image_files import ImageLimits
from service.pipeline.estimator import Estimator
from service.pipeline.limits import PipelineLimits
from service.pipeline.pipeline import PosePipeline
from service.scheduling.batch_run import BatchLimits
from service.scheduling.owner_thread import OwnerThread
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracer

_T = TypeVar("_T")
_REPORT_EVERY_S = 5.0
_MAX_DETECT_BATCH: Final = 8
_LEAST_QUEUE: Final = 64
Build = Callable[[Settings], Estimator]

_log = structlog.get_logger(__name__)


def build_estimator(settings: Settings) -> Estimator:
    """The estimator that the settings describe; called in the thread that will own the models."""
    import torch

    from sdpose_core import PoseEstimator
    from sdpose_core.detector import YoloPersonDetector

    estimator = PoseEstimator.from_pretrained(
        student=settings.student,
        detector=settings.detector,
        device=settings.device,
        backend=settings.backend,
        precision=settings.precision,
        max_batch=settings.max_batch,
        detector_size=settings.detector_size,
        detector_classes=settings.detector_classes,
    )
    if isinstance(estimator.detector, YoloPersonDetector):
        # Imports ultralytics now, which else the first stream with ids would wait for.
        importlib.import_module("sdpose_core.tracking.association")
    if estimator.backend_name == "openvino":
        # All that is left to PyTorch is the flip test's mirroring. Its helper threads would wait
        # for cores on which OpenVINO's still spin: up to 30 ms per batch.
        torch.set_num_threads(1)
    return estimator


async def _reported(waited: asyncio.Future[_T], event: str, began: float) -> _T:
    """The result; until it is there, log lines with the seconds since `began`."""
    while not (await asyncio.wait({waited}, timeout=_REPORT_EVERY_S))[0]:
        _log.info(event, seconds=round(time.monotonic() - began, 1))
    return await waited


class Models:
    """A warm pipeline and the threads that own its models; made by `load`."""

    def __init__(self, pipeline: PosePipeline, workers: tuple[OwnerThread, ...]) -> None:
        self.pipeline = pipeline
        self.workers = workers

    @classmethod
    async def load(
        cls,
        settings: Settings,
        build: Build,
        worker: OwnerThread,
        metrics: Metrics,
        tracer: Tracer,
    ) -> Models:
        """Loads in `worker`, which then owns the models, and warms up.

        Raises the error of either; the worker is the caller's then.
        """
        began = time.monotonic()
        _log.info(
            "loading", student=settings.student, detector=settings.detector, device=settings.device
        )
        loading = asyncio.wrap_future(worker.call(lambda: build(settings)))
        estimator = await _reported(loading, "still loading", began)
        _log.info(
            "loaded",
            student=estimator.student_name,
            detector=estimator.detector_name,
            backend=estimator.backend_name,
            device=str(estimator.device),
            seconds=round(time.monotonic() - began, 2),
        )
        on_cpu = str(estimator.device).startswith("cpu")
        limits = pipeline_limits(settings, on_cpu=on_cpu)
        # On a CPU the detector's full batches would take seconds here, one for each aspect,
        # to save a fraction of a second later.
        warm_up = partial(
            estimator.warm_up,
            max_cycles=settings.max_cycles,
            detect_batch=1 if on_cpu else limits.detect.max_cost,
        )
        warming = asyncio.wrap_future(worker.call(warm_up))
        await _reported(warming, "still warming up; a first start converts the networks", began)
        # On a CPU one inference takes all cores: detector and student share a thread and so
        # alternate. On a GPU each has its own, and their work overlaps.
        workers = (worker,) if on_cpu else (worker, OwnerThread("detect"))
        pipeline = PosePipeline(
            estimator,
            limits=limits,
            detect_worker=workers[-1],
            pose_worker=worker,
            metrics=metrics,
            tracer=tracer,
        )
        return cls(pipeline, workers)

    async def retire(self, within_s: float) -> None:
        """Ends them when the requests that use them have their answers, or after that time."""
        try:
            async with asyncio.timeout(within_s):
                await self.pipeline.drain()
        except TimeoutError:
            _log.warning("the previous models are ended with requests in flight")
        self.pipeline.close()
        ended = [asyncio.to_thread(worker.stop, 10.0) for worker in self.workers]
        if not all(await asyncio.gather(*ended)):
            _log.warning("a thread of the previous models does not end")

    def stop(self) -> bool:
        """Fails what is left and ends the threads; False when one is still running."""
        self.pipeline.close()
        ended = [worker.stop(timeout_s=1.0) for worker in self.workers]
        return all(ended)


def pipeline_limits(settings: Settings, *, on_cpu: bool) -> PipelineLimits:
    """The settings as the values that the rooms below understand."""
    wait_ms = settings.max_wait_ms
    wait_s = (30.0 if on_cpu else 2.0) / 1e3 if wait_ms is None else wait_ms / 1e3
    max_batch = settings.max_batch or (32 if on_cpu else 64)
    most_images = max(_LEAST_QUEUE, settings.max_requests // 4)
    return PipelineLimits(
        images=ImageLimits(
            max_bytes=int(settings.max_image_mb * 2**20),
            max_pixels=int(settings.max_megapixels * 1e6),
        ),
        detect=BatchLimits(min(_MAX_DETECT_BATCH, max_batch), wait_s, most_images),
        pose=BatchLimits(max_batch, wait_s, settings.max_requests),
        decode_threads=settings.threads_for_decoding,
        max_decode_queue=most_images,
        max_decoded_bytes=settings.max_decoded_bytes,
        least_side=2 * settings.detector_size,
        max_people=settings.max_boxes,
        suppress=settings.suppress,
        cycles=settings.cycles,
        max_cycles=settings.max_cycles,
    )


def settle_memory() -> None:
    """Collects the previous models and freezes the rest: docs/decisions/0015-memory.md."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
