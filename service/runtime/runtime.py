"""The life of the service: start, warm-up, readiness, drain, stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final

import structlog

from sdpose_core.types import Floats, Image
from service.access.callers import Access, Caller
from service.access.keys import known_keys
from service.admission.door import Door
from service.admission.ticket import Deadlines, Ticket
from service.cameras.addresses import AddressRules
from service.cameras.camera import CameraServices
from service.cameras.cameras import Cameras
from service.cameras.settings import read_camera_file
from service.errors import ErrorCode, ServiceError, unavailable
from service.parameters import PoseParameters
from service.pipeline.pipeline import PosePipeline
from service.pipeline.results import ModelNames, PoseResult
from service.runtime.models import Build, Models, build_estimator, settle_memory
from service.runtime.state import State
from service.scheduling.budget import ByteBudget
from service.scheduling.owner_thread import OwnerThread
from service.scheduling.work_pool import WorkPool
from service.settings import Settings
from service.streams.pose_stream import PoseStream
from service.streams.resume import Resumable
from service.streams.streams import Streams
from service.telemetry.calls import Calls
from service.telemetry.gpu import gpu_reader
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import SilentTracer, Tracer

_log = structlog.get_logger(__name__)
_RESUMABLE_S: Final = 30.0
"""How long the identities of an ended stream are kept for its resume token."""


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
        self.access = Access(
            known_keys(settings.api_keys, settings.key_file),
            settings.max_priority,
            partial(self.metrics.shed, "access", "key_limit"),
        )
        self.bodies = ByteBudget(
            settings.max_bodies_bytes,
            "request bodies in memory",
            partial(self.metrics.shed, "body", "memory"),
        )
        self.door = Door(
            max_requests=settings.max_requests,
            max_calls=settings.max_requests + settings.max_streams,
            memory=self.bodies,
            deadlines=Deadlines(
                settings.max_deadline_ms / 1e3,
                settings.default_deadline_ms / 1e3,
                settings.max_queue_ms / 1e3,
            ),
            check_ready=self._ready_models,
            shed=partial(self.metrics.shed, "requests"),
        )
        self.body_pool = WorkPool("body", threads=1, max_waiting=settings.max_requests)
        self.calls = Calls(self.metrics, self.tracer)
        self.streams = Streams(
            settings.max_streams,
            self.metrics,
            self.bodies,
            settings.stream_idle_seconds,
            Resumable(settings.max_streams, _RESUMABLE_S),
        )
        self.cameras = Cameras(
            AddressRules(settings.camera_addresses),
            CameraServices(
                self.calls,
                self._open_stream,  # whose place a camera has held since it was added
                self._draw_frame,
                int(settings.max_megapixels * 1e6),
            ),
            max_cameras=settings.max_cameras,
            max_watchers=settings.max_streams,
        )
        self.metrics.watch_cameras(self.cameras.all)
        self._own_cameras = read_camera_file(settings.camera_file, settings.max_cameras)
        self.state = State.STARTING
        self._build = build
        self._models: Models | None = None
        self._loading: asyncio.Lock = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], Models] = {}
        self._workers: list[OwnerThread] = []

    @property
    def pipeline(self) -> PosePipeline:
        """That of the models that serve now. Raises `ServiceError` unavailable before there are."""
        if self._models is None:
            raise unavailable("the models are not loaded yet")
        return self._models.pipeline

    def _ready_models(self) -> Models:
        reason = self.not_ready()
        if reason is not None or self._models is None:
            raise unavailable(f"the service is {reason or 'starting'}")
        return self._models

    @contextmanager
    def open_stream(self, caller: Caller) -> Iterator[PoseStream]:
        """One more stream for a front end. Raises `ServiceError` as `Door.check`, or overloaded."""
        with caller.stream(), self._open_stream(caller) as stream:
            yield stream

    def _open_stream(self, caller: Caller) -> AbstractContextManager[PoseStream]:
        self.door.check_room(self._frame_ticket(caller))
        return self.streams.open(partial(self.estimate_frame, caller), caller.share)

    async def estimate_frame(
        self,
        caller: Caller,
        image: bytes | Image,
        parameters: PoseParameters,
        boxes: Floats | None = None,
    ) -> PoseResult:
        """One frame of a stream, as a separate request. Raises `ServiceError`."""
        ticket = self._frame_ticket(caller)
        self.door.check(ticket, request=False)
        with self.door.enter(ticket) as admission:
            turn = ticket.turn(parameters.priority)
            result = await self.pipeline.estimate(image, parameters, boxes, turn=turn)
            admission.answered(len(result.poses))
            return result

    async def _draw_frame(self, caller: Caller, result: PoseResult) -> bytes:
        """The kept image of a result with its poses drawn, as JPEG. Raises `ServiceError`."""
        ticket = self._frame_ticket(caller)
        with self.door.enter(ticket):
            return await self.pipeline.draw(result, ticket.turn())

    def _frame_ticket(self, caller: Caller) -> Ticket:
        return self.door.ticket(caller, self._longest_s)

    @property
    def _longest_s(self) -> float:
        return self.settings.max_deadline_ms / 1e3

    @property
    def in_flight(self) -> int:
        """Admitted requests that have not ended."""
        return self.door.inside.count

    def not_ready(self) -> str | None:
        """Why new work is rejected; None when ready."""
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
        for pool in () if self._models is None else self._models.pipeline.pools:
            if pool.busy_s > self.settings.stall_seconds:
                return f"stuck: the {pool.name} pool is busy for {pool.busy_s:.0f} s"
        return None

    async def start(self) -> None:
        """Loads the models and warms them up; raises what made that fail."""
        began = time.monotonic()
        worker = OwnerThread("pose")
        self._workers = [worker]
        try:
            models = await Models.load(
                self.settings, self._build, worker, self.metrics, self.tracer
            )
        except BaseException:
            self.state = State.FAILED
            raise
        device = models.pipeline.models.device
        if not device.startswith("cpu"):
            self.metrics.watch_gpu(gpu_reader(device))
        self._take_over(models)
        settle_memory()
        if self.state is State.STARTING:
            self.state = State.READY
            self.cameras.start(self._own_cameras)
        _log.info("ready", seconds=round(time.monotonic() - began, 2))

    async def reload(self, **changed: str) -> ModelNames:
        """Reloads the models and swaps: requests in flight finish on the previous ones.

        Args:
            **changed: settings in place of those now, such as `student`.

        Raises:
            ServiceError: already_exists while another is loading, unavailable unless ready, and
                invalid_argument if the models do not load; then those before stay.
        """
        before = self._ready_models()
        if self._loading.locked():
            raise ServiceError(ErrorCode.ALREADY_EXISTS, "models are being loaded already")
        async with self._loading:
            settings = self.settings.model_copy(update=dict(changed))
            worker = OwnerThread("pose")
            try:
                models = await Models.load(settings, self._build, worker, self.metrics, self.tracer)
            except Exception as error:
                await asyncio.to_thread(worker.stop, 10.0)
                _log.error("not reloaded", reason=str(error))
                raise ServiceError(
                    ErrorCode.INVALID_ARGUMENT, f"the models do not load: {error}"
                ) from error
            except BaseException:
                worker.give_up()
                raise
        if self.state is not State.READY:
            models.stop()
            self._ready_models()
        self.settings = settings
        self._take_over(models)
        retiring = asyncio.create_task(before.retire(self._longest_s))
        self._retiring[retiring] = before
        retiring.add_done_callback(self._retired)
        names = models.pipeline.models
        _log.info("reloaded", student=names.student, detector=names.detector)
        return names

    def _retired(self, retiring: asyncio.Task[None]) -> None:
        self._retiring.pop(retiring, None)
        asyncio.get_running_loop().call_soon(settle_memory)

    def _take_over(self, models: Models) -> None:
        self._models = models
        self._workers = list(models.workers)
        names = models.pipeline.models
        self.metrics.model_info.clear()
        self.metrics.model_info.labels(
            names.student, names.detector, names.backend, names.device
        ).set(1)

    def reload_keys(self) -> None:
        """Reads the key file again. Raises `ValueError` with a sentence; the keys then stay."""
        self.access.replace(known_keys(self.settings.api_keys, self.settings.key_file))

    def reject_new_work(self) -> None:
        """From now on no request enters; what is in flight goes on."""
        if self.state in (State.STARTING, State.READY):
            self.state = State.DRAINING
        self.cameras.close()
        self.streams.close("the service is draining")

    async def drain(self) -> bool:
        """Finishes what is in flight, at most for the grace time; returns whether all was done."""
        self.reject_new_work()
        try:
            async with asyncio.timeout(self.settings.drain_seconds):
                await self.door.inside.ended()
                if self._models is not None:
                    await self._models.pipeline.drain()
        except TimeoutError:
            return False
        return True

    def stop(self) -> bool:
        """Fails what is left and ends the threads; False when one is still running."""
        before = list(self._retiring.items())
        for retiring, _ in before:
            retiring.cancel()
        if self._models is not None:
            self._models.pipeline.close()
        self.body_pool.stop()
        ended = [worker.stop(timeout_s=1.0) for worker in self._workers]
        ended += [models.stop() for _, models in before]
        ended.append(self.cameras.ended(timeout_s=1.0))
        if self.state is not State.FAILED:
            self.state = State.STOPPED
        return all(ended)
