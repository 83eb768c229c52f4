"""The one way from an image file to its people; every front end calls `PosePipeline.estimate`.

decode (pool) -> detect (batched over images) -> crop (pool) -> pose (batched over people of all
requests). Knows neither HTTP nor gRPC. Deadlines are `time.monotonic()` moments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

from sdpose_core.types import NO_DETECTOR, Detections, Floats, Image, Poses, given_boxes
from sdpose_core.vision.image_files import encode_jpeg
from sdpose_core.vision.people import worth_posing
from service.errors import invalid_argument
from service.parameters import PoseParameters, check_boxes_touch
from service.pipeline.decoding import Decoded, ImageDecoder
from service.pipeline.estimator import Crops, Estimator, Frame
from service.pipeline.limits import PipelineLimits, allowed_cycles
from service.pipeline.results import ModelNames, Posed, PoseGroup, PoseResult
from service.scheduling.batching import Batcher
from service.scheduling.budget import ByteBudget
from service.scheduling.in_flight import InFlight
from service.scheduling.owner_thread import OwnerThread, on_device
from service.scheduling.turns import ANY_TIME, Turn
from service.scheduling.work_pool import WorkPool
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import SilentTracer, Tracer

T = TypeVar("T")
DEFAULTS = PoseParameters()


class PosePipeline:
    """Drives one estimator for many callers. Made on the event loop that it serves."""

    def __init__(
        self,
        estimator: Estimator,
        *,
        limits: PipelineLimits,
        detect_worker: OwnerThread,
        pose_worker: OwnerThread,
        metrics: Metrics,
        tracer: Tracer | None = None,
    ) -> None:
        self.limits = limits
        self.models = ModelNames(
            estimator.student_name,
            estimator.detector_name,
            estimator.backend_name,
            str(estimator.device),
        )
        self.input_size = estimator.input_size
        self.skeleton = estimator.skeleton
        self.cycles = allowed_cycles(estimator.cycles, limits)
        self._estimator = estimator
        self._metrics = metrics
        self._tracer = tracer or SilentTracer()
        self._in_flight = InFlight()
        self._workers = (detect_worker, pose_worker)
        self._on_device = partial(on_device, self._workers, estimator.alive)
        self._decoder = ImageDecoder(
            limits.images,
            ByteBudget(
                limits.max_decoded_bytes,
                "decoded images in flight",
                partial(metrics.shed, "decode", "memory"),
            ),
            least_side=limits.least_side,
            crop_size=estimator.input_size,
        )
        self._decode_pool = WorkPool(
            "decode",
            threads=limits.decode_threads,
            max_waiting=limits.max_decode_queue,
            observer=metrics,
        )
        self._crop_pool = WorkPool(
            "crop",
            threads=limits.decode_threads,
            max_waiting=limits.pose.max_queue_cost,
            observer=metrics,
        )
        self._detect: Batcher[Frame, Detections] = Batcher(
            "detect",
            self._run_detect,
            worker=detect_worker,
            limits=limits.detect,
            observer=metrics,
        )
        self._pose: Batcher[Crops, Posed] = Batcher(
            "pose", self._run_pose, worker=pose_worker, limits=limits.pose, observer=metrics
        )

    @property
    def pools(self) -> tuple[WorkPool, ...]:
        """The threads that prepare images."""
        return self._decode_pool, self._crop_pool

    @property
    def workers(self) -> tuple[OwnerThread, ...]:
        """The threads without which nothing is answered."""
        return self._workers

    async def estimate(
        self,
        source: bytes | Image,
        parameters: PoseParameters = DEFAULTS,
        boxes: Floats | None = None,
        *,
        turn: Turn = ANY_TIME,
        keep_image: bool = False,
    ) -> PoseResult:
        """Finds the people of one image file (or decoded image).

        `boxes` `(N, 4)` xyxy pixels are people known already: the detector is skipped. In place
        of the parameters' `deadline_ms` and `priority`, its `turn` in every queue counts here.
        Raises `ServiceError`.
        """
        with self._in_flight:
            started = time.monotonic()
            timings = {"queue": 0.0}
            cycles = self._cycles(parameters.cycles)  # a bad value is rejected before any work
            if boxes is None and self.models.detector == NO_DETECTOR:
                raise invalid_argument("boxes", "needed, as this service runs without a detector")
            image, frame, people = await self._people(
                source, parameters, boxes, turn, timings, whole=keep_image
            )
            poses = Poses.empty(self.skeleton)
            if len(people):
                with self._pose.expecting():
                    cut = partial(self._crop, frame, people.boxes)
                    crops = await self._timed(self._crop_pool, cut, turn, timings)
                group = PoseGroup(cycles, parameters.flip_test)
                done = await self._pose.submit(crops, cost=len(people), group=group, turn=turn)
                posed = done.value
                self._note(timings, "pose", posed.pose_s, done.waited_s)
                self._note(timings, "keypoints", posed.keypoints_s)
                poses = Poses(
                    posed.joints.points,
                    posed.joints.scores,
                    people.boxes,
                    people.scores,
                    skeleton=self.skeleton,
                    visibility=posed.joints.visibility,
                )
            if not poses.finite:  # a fault of ours, and nothing that JSON could carry
                raise FloatingPointError("a keypoint or a score is not finite")
            suppress = parameters.suppress
            poses = self._estimator.answered(
                image.grown_poses(poses),
                (image.width, image.height),
                given=boxes is not None,
                min_score=parameters.min_score,
                suppress=self.limits.suppress if suppress is None else suppress,
            ).first(parameters.max_people)
            self._metrics.people_per_image.observe(len(poses))
            timings["total"] = time.monotonic() - started
            return PoseResult(
                poses,
                image.width,
                image.height,
                self.models,
                {stage: seconds * 1e3 for stage, seconds in timings.items()},
                parameters.min_keypoint_score,
                image.pixels if keep_image else None,
            )

    def announce(self) -> Callable[[], None]:
        """Lets a batch wait a little for a call whose image still arrives; see `Batcher`."""
        return self._detect.announce()

    async def draw(self, result: PoseResult, turn: Turn = ANY_TIME) -> bytes:
        """The kept image of a result with its poses drawn, as JPEG."""
        assert result.image is not None, "estimate() must be called with keep_image=True"
        drawing = partial(_annotated, result.image, result.poses, result.min_keypoint_score)
        with self._in_flight:
            return await self._crop_pool.run(drawing, turn)

    async def drain(self) -> None:
        """Finishes what is in flight; no batch waits for company any more."""
        await self._detect.drain()
        await self._pose.drain()
        await self._in_flight.ended()

    def close(self) -> None:
        """Fails what still waits and ends the pools; the workers belong to the runtime."""
        self._detect.close()
        self._pose.close()
        self._decode_pool.stop()
        self._crop_pool.stop()

    async def _people(
        self,
        source: bytes | Image,
        parameters: PoseParameters,
        boxes: Floats | None,
        turn: Turn,
        timings: dict[str, float],
        *,
        whole: bool,
    ) -> tuple[Decoded, Frame, Detections]:
        """The decoded image, and the people in its pixels."""
        # An image that is being decoded will join the batch that forms in the meantime.
        next_batch = self._pose if boxes is not None else self._detect
        with next_batch.expecting():
            decode = partial(self._decode, source, whole=whole, boxes=boxes)
            image, frame = await self._timed(self._decode_pool, decode, turn, timings)
        if boxes is not None:
            check_boxes_touch(boxes, image.width, image.height)
            given = given_boxes(boxes).select(limit=parameters.max_people)
            return image, frame, image.shrunk(given)
        done = await self._detect.submit(frame, turn=turn)
        self._note(timings, "detect", done.ran_s, done.waited_s)
        most = parameters.max_people or self.limits.max_people
        candidates = worth_posing(done.value, most, pixel=image.reduction)
        people = image.inside(candidates.select(limit=self.limits.max_people))
        if image.reduction > 1 and not self._decoder.large_enough(people.boxes):
            people = image.grown(people)
            decode = partial(self._decode, source, whole=True, instead_of=image)
            image, frame = await self._timed(self._decode_pool, decode, turn, timings)
        return image, frame, people

    async def _timed(
        self, pool: WorkPool, work: Callable[[], T], turn: Turn, timings: dict[str, float]
    ) -> T:
        """Runs work in a pool and notes how long it waited and how long the work itself took."""
        stage = pool.name
        submitted = time.monotonic()
        waited_s = worked_s = 0.0

        def timed() -> T:
            nonlocal waited_s, worked_s
            started = time.monotonic()
            waited_s = started - submitted
            result = work()
            worked_s = time.monotonic() - started
            self._metrics.stage_seconds.labels(stage).observe(worked_s)
            return result

        result = await pool.run(timed, turn)
        self._note(timings, stage, worked_s, waited_s)
        return result

    def _note(
        self, timings: dict[str, float], stage: str, worked_s: float, waited_s: float = 0.0
    ) -> None:
        timings[stage] = timings.get(stage, 0.0) + worked_s
        timings["queue"] += waited_s
        self._tracer.stage(stage, worked_s, waited_s)

    def _cycles(self, requested: int | None) -> int:
        try:
            return self.cycles.check(requested)
        except ValueError:
            raise invalid_argument("cycles", f"must be {self.cycles.described}") from None

    def _decode(
        self,
        source: bytes | Image,
        *,
        whole: bool,
        boxes: Floats | None = None,
        instead_of: Decoded | None = None,
    ) -> tuple[Decoded, Frame]:
        image = self._decoder.decode(source, whole=whole, boxes=boxes, instead_of=instead_of)
        with self._on_device():
            return image, self._estimator.upload(image.pixels)

    def _crop(self, frame: Frame, boxes: Floats) -> Crops:
        with self._on_device():
            return self._estimator.crop(frame, boxes)

    def _run_detect(self, frames: Sequence[Frame], group: Hashable) -> list[Detections]:
        with self._on_device(), self._metrics.stage_seconds.labels("detect").time():
            return self._estimator.detect(frames)

    def _run_pose(self, crops: Sequence[Crops], group: Hashable) -> list[Posed]:
        assert isinstance(group, PoseGroup)
        started = time.monotonic()
        with self._on_device():
            heatmaps = self._estimator.heatmaps(
                crops, flip_test=group.flip_test, cycles=group.cycles
            )
            seen = time.monotonic()
            found = self._estimator.keypoints(heatmaps, crops)
        pose_s, keypoints_s = seen - started, time.monotonic() - seen
        self._metrics.stage_seconds.labels("pose").observe(pose_s)
        self._metrics.stage_seconds.labels("keypoints").observe(keypoints_s)
        return [Posed(joints, pose_s, keypoints_s) for joints in found]


def _annotated(image: Image, poses: Poses, min_keypoint_score: float) -> bytes:
    from sdpose_core.io.overlay import (
        draw_poses,  # the drawing library is heavy and seldom needed
    )

    # If the caller names no score, the drawing keeps its own: guesses clutter an image.
    if not min_keypoint_score:
        return encode_jpeg(draw_poses(image, poses))
    return encode_jpeg(draw_poses(image, poses, min_keypoint_score=min_keypoint_score))
