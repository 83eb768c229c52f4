"""The life of the service: start, warm-up, readiness, drain, stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from functools import partial

import structlog

from sdpose_core.image_files import ImageLimits
from sdpose_core.types import Cycles, Floats, Image
from service.cameras.addresses import AddressRules
from service.cameras.camera import Host
from service.cameras.cameras import Cameras
from service.cameras.settings import CameraFileError, CameraSettings, read_camera_file
from service.errors import ErrorCode, ServiceError
from service.parameters import PoseParameters
from service.pipeline.estimator import Estimator
from service.pipeline.limits import PipelineLimits
from service.pipeline.pipeline import PosePipeline
from service.pipeline.results import ModelNames, PoseResult
from service.scheduling.batch_run import BatchLimits
from service.scheduling.budget import ByteBudget
from service.scheduling.owner_thread import OwnerThread
from service.settings import Settings
from service.streams.pose_stream import PoseStream, open_stream
from service.streams.resume import Resumable
from service.streams.sessions import Streams
from service.telemetry.calls import Calls
from service.telemetry.gpu import gpu_reader
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import SilentTracer, Tracer

Build = Callable[[Settings], Estimator]

_log = structlog.get_logger(__name__)


class State(StrEnum):
    """The states of the service, in order."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


def build_estimator(settings: Settings) -> Estimator:
    """The estimator that the settings describe; called in the thread that will own the models."""
    import torch

    from sdpose_core import PoseEstimator

    estimator = PoseEstimator.from_pretrained(
        student=settings.student,
        detector=settings.detector,
        device=settings.device,
        backend=settings.backend,
        precision=settings.precision,
        max_batch=settings.max_batch,
        detector_size=settings.detector_size,
    )
    if estimator.backend_name == "openvino":
        # All that is left to PyTorch is the flip test's mirroring. Its helper threads would wait
        # for cores on which OpenVINO's still spin: up to 30 ms a batch.
        torch.set_num_threads(1)
    return estimator


class Runtime:
    """Owns the models' threads and the pipeline; knows whether the service is live and ready.

    Raises `ValueError` with one sentence for a camera file or pattern that is wrong.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        build: Build = build_estimator,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.settings = settings
        self.tracer = tracer or SilentTracer()
        self.metrics = metrics or Metrics()
        self.metrics.ready.set_function(lambda: self.not_ready() is None)
        self.bodies = ByteBudget(
            settings.max_bodies_mb * 2**20,
            "request bodies in memory",
            partial(self.metrics.shed, "body", "memory"),
        )
        self.calls = Calls(self.metrics, self.tracer, settings.max_deadline_ms)
        self.streams = Streams(
            settings.max_streams, self.metrics, self.bodies, settings.stream_idle_seconds
        )
        self._resumable = Resumable(settings.max_streams, settings.stream_resume_seconds)
        self.cameras = Cameras(
            AddressRules(settings.camera_addresses),
            Host(self.calls, self.open_stream, self.draw_frame, int(settings.max_megapixels * 1e6)),
            max_cameras=settings.max_cameras,
            max_watchers=settings.max_watchers,
        )
        self.metrics.watch_cameras(self.cameras.all)
        self._own_cameras = _cameras_of(settings)
        self.state = State.STARTING
        self._build = build
        self._pipeline: PosePipeline | None = None
        self._workers: list[OwnerThread] = []
        self._in_flight = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @contextmanager
    def permit(self) -> Iterator[PosePipeline]:
        """Lets one request in until the block ends, for which `drain` waits.

        Raises `ServiceError` as `check_admission` does.
        """
        pipeline = self.check_admission()
        self._in_flight += 1
        self._quiet.clear()
        try:
            yield pipeline
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._quiet.set()

    def check_admission(self) -> PosePipeline:
        """The pipeline, where a request would be let in now.

        Raises `ServiceError` unavailable unless ready, overloaded at the maximum of requests.
        """
        reason = self.not_ready()
        if reason is not None or self._pipeline is None:
            raise ServiceError(
                ErrorCode.UNAVAILABLE, f"the service is {reason or 'starting'}", retry_after_s=2.0
            )
        if self._in_flight >= self.settings.max_requests:
            self.metrics.shed("requests", "too_many_requests")
            raise ServiceError(
                ErrorCode.OVERLOADED, "too many requests are in flight", retry_after_s=1.0
            )
        return self._pipeline

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Holds `size` bytes of memory for a request; raises overloaded if they do not fit."""
        self.bodies.take(size)
        try:
            yield
        finally:
            self.bodies.give_back(size)

    def open_stream(self) -> AbstractContextManager[PoseStream]:
        """One more stream for a front end. Raises `ServiceError` as `permit`, or overloaded."""
        self.check_admission()
        return open_stream(self.streams, self._resumable, self.estimate_frame, self.metrics)

    async def estimate_frame(
        self, image: bytes | Image, parameters: PoseParameters, boxes: Floats | None = None
    ) -> PoseResult:
        """One frame of a stream, as a separate request. Raises `ServiceError`."""
        deadline = time.monotonic() + self.settings.max_deadline_ms / 1e3
        with self.permit() as pipeline:
            return await pipeline.estimate(image, parameters, boxes, deadline=deadline)

    async def draw_frame(self, result: PoseResult) -> bytes:
        """The kept image of a result with its poses drawn, as JPEG. Raises `ServiceError`."""
        deadline = time.monotonic() + self.settings.max_deadline_ms / 1e3
        with self.permit() as pipeline:
            return await pipeline.draw(result, deadline=deadline)

    @property
    def in_flight(self) -> int:
        """Requests that hold a permit."""
        return self._in_flight

    @property
    def models(self) -> ModelNames | None:
        """What is loaded; None before that."""
        return None if self._pipeline is None else self._pipeline.models

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Width and height of the student's crops; None before it is loaded."""
        return None if self._pipeline is None else self._pipeline.input_size

    @property
    def cycles(self) -> Cycles | None:
        """What a request may set; None before the student is loaded."""
        return None if self._pipeline is None else self._pipeline.cycles

    def not_ready(self) -> str | None:
        """Why new work is refused; None when ready."""
        if self.state is not State.READY:
            return self.state.value
        return self.not_live()

    def not_live(self) -> str | None:
        """Why the process should be replaced; None when it is well."""
        if self.state is State.FAILED:
            return "failed to start"
        for worker in self._workers:
            if worker.lost:
                return f"without its {worker.name} worker, which is lost"
            # Loading and warming are no batch, and may take longer than any.
            starting = self.state is State.STARTING
            if worker.busy_s > self.settings.stall_seconds and not starting:
                return f"stuck: the {worker.name} worker is busy for {worker.busy_s:.0f} s"
        return None

    async def start(self) -> None:
        """Loads the models and warms them up; raises what made that fail."""
        settings = self.settings
        began = time.monotonic()
        _log.info(
            "loading", student=settings.student, detector=settings.detector, device=settings.device
        )
        pose_worker = OwnerThread("pose")
        self._workers = [pose_worker]
        try:
            estimator = await asyncio.wrap_future(pose_worker.call(lambda: self._build(settings)))
            loaded = time.monotonic()
            _log.info(
                "loaded",
                student=estimator.student_name,
                detector=estimator.detector_name,
                backend=estimator.backend_name,
                device=str(estimator.device),
                seconds=round(loaded - began, 2),
            )
            on_cpu = str(estimator.device).startswith("cpu")
            # On a CPU the detector's full batches would take seconds here, one for each aspect,
            # to save a fraction of a second later.
            warm_up = partial(
                estimator.warm_up,
                max_cycles=settings.max_cycles,
                detect_batch=1 if on_cpu else settings.max_detect_batch,
            )
            await asyncio.wrap_future(pose_worker.call(warm_up))
        except BaseException:
            self.state = State.FAILED
            raise
        # On a CPU one inference takes all cores: detector and student share a thread and so
        # alternate. On a GPU each has its own, and their work overlaps.
        detect_worker = pose_worker
        if not on_cpu:
            detect_worker = OwnerThread("detect")
            self._workers.append(detect_worker)
            self.metrics.watch_gpu(gpu_reader(str(estimator.device)))
        self._pipeline = PosePipeline(
            estimator,
            limits=pipeline_limits(settings, on_cpu=on_cpu),
            detect_worker=detect_worker,
            pose_worker=pose_worker,
            metrics=self.metrics,
            tracer=self.tracer,
        )
        names = self._pipeline.models
        self.metrics.model_info.labels(
            names.student, names.detector, names.backend, names.device
        ).set(1)
        if self.state is State.STARTING:
            self.state = State.READY
            self.cameras.start(self._own_cameras)
        _log.info("ready", seconds=round(time.monotonic() - began, 2))

    def refuse_new_work(self) -> None:
        """From now on no permit is given; what is in flight goes on."""
        if self.state in (State.STARTING, State.READY):
            self.state = State.DRAINING
        self.cameras.close()
        self.streams.close("the service is draining")

    async def drain(self) -> bool:
        """Finishes what is in flight, at most for the grace time; returns whether all was done."""
        self.refuse_new_work()
        try:
            async with asyncio.timeout(self.settings.drain_seconds):
                await self._quiet.wait()
                if self._pipeline is not None:
                    await self._pipeline.drain()
        except TimeoutError:
            return False
        return True

    def stop(self) -> bool:
        """Fails what is left and ends the threads; False when one is still running."""
        if self._pipeline is not None:
            self._pipeline.close()
        ended = [worker.stop(timeout_s=1.0) for worker in self._workers]
        ended.append(self.cameras.ended(timeout_s=1.0))
        if self.state is not State.FAILED:
            self.state = State.STOPPED
        return all(ended)


def _cameras_of(settings: Settings) -> list[CameraSettings]:
    cameras = read_camera_file(settings.camera_file) if settings.camera_file else []
    if len(cameras) > settings.max_cameras:
        raise CameraFileError(
            f"{settings.camera_file}: {len(cameras)} cameras, more than SDPOSE_MAX_CAMERAS, "
            f"{settings.max_cameras}"
        )
    return cameras


def pipeline_limits(settings: Settings, *, on_cpu: bool) -> PipelineLimits:
    """The settings as the values that the rooms below understand."""
    wait_ms = settings.max_wait_ms
    wait_s = (30.0 if on_cpu else 2.0) / 1e3 if wait_ms is None else wait_ms / 1e3
    max_batch = settings.max_batch or (32 if on_cpu else 64)
    return PipelineLimits(
        images=ImageLimits(
            max_bytes=int(settings.max_image_mb * 2**20),
            max_pixels=int(settings.max_megapixels * 1e6),
        ),
        detect=BatchLimits(settings.max_detect_batch, wait_s, settings.max_detect_queue),
        pose=BatchLimits(max_batch, wait_s, settings.max_queue),
        decode_threads=settings.threads_for_decoding,
        max_decode_queue=settings.max_decode_queue,
        max_decoded_bytes=settings.max_decoded_mb * 2**20,
        least_side=2 * settings.detector_size,
        max_people=settings.max_boxes,
        cycles=settings.cycles,
        max_cycles=settings.max_cycles,
    )
