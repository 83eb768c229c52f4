"""The paths of the REST front end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json

from sdpose_core.skeleton import EDGES, KEYPOINT_NAMES
from sdpose_core.types import Floats
from service.access.callers import Caller
from service.errors import ErrorCode, ServiceError, as_service_error
from service.json_text import most_values
from service.parameters import PoseParameters, parse_boxes, parse_parameters
from service.pipeline.results import PoseResult
from service.rest.body import BodyLimits, BodyShare, read_body
from service.rest.callers import callers_of
from service.rest.connection import while_connected
from service.rest.documentation import OVERLAY_DOCUMENT, POSE_DOCUMENT, PROBLEMS
from service.rest.errors import answer_entry
from service.rest.schemas import Health, ModelsResponse
from service.runtime.permit import Permit
from service.runtime.runtime import Runtime
from service.telemetry.calls import current_call


@dataclass(frozen=True, slots=True)
class _Admitted:
    """One checked request that holds a permit: its images, and the boxes of each."""

    images: list[bytes]
    parameters: PoseParameters
    boxes: Sequence[Floats | None]
    permit: Permit
    deadline: float

    async def estimate(self, index: int, *, keep_image: bool = False) -> PoseResult:
        return await self.permit.estimate(
            self.images[index],
            self.parameters,
            self.boxes[index],
            deadline=self.deadline,
            keep_image=keep_image,
        )

    async def estimate_all(self) -> list[PoseResult | BaseException]:
        estimates = [self.estimate(index) for index in range(len(self.images))]
        return await asyncio.gather(*estimates, return_exceptions=True)

    async def draw(self) -> bytes:
        result = await self.estimate(0, keep_image=True)
        return await self.permit.draw(
            result, priority=self.parameters.priority, deadline=self.deadline
        )


def pose_routes(runtime: Runtime) -> APIRouter:
    """Everything that looks at images; behind the keys where there are any."""
    settings = runtime.settings
    limits = BodyLimits(
        max_request_bytes=int(settings.max_request_mb * 2**20),
        max_image_bytes=int(settings.max_image_mb * 2**20),
        max_images=settings.max_images,
        max_values=most_values(settings.max_boxes, settings.max_images),
    )

    identify = callers_of(runtime.access)
    router = APIRouter(dependencies=[Depends(identify)], tags=["pose"])

    async def admitted(
        request: Request, caller: Caller = Depends(identify)
    ) -> AsyncIterator[_Admitted]:
        """The checked request; a drain waits, and its body counts, until the answer is sent."""
        # All that can refuse it comes first: then its body is not read.
        patience_s = runtime.patience_s(request.query_params.get("deadline_ms"))
        caller.check(requests=1)
        with (
            runtime.permit(caller, patience_s) as permit,
            BodyShare(runtime.bodies, caller.share) as share,
        ):
            # In one thread for all: each that computes keeps the interpreter from the event loop.
            read = partial(runtime.body_pool.run, share=caller.share)
            body = await read_body(request, limits, share, read)
            raw = dict(body.parameters)
            boxes = raw.pop("boxes", None)
            parameters = parse_parameters(raw)
            many = len(body.images)
            each = [None] * many if boxes is None else parse_boxes(boxes, many, settings.max_boxes)
            deadline = current_call().deadline(parameters.deadline_ms)
            yield _Admitted(body.images, parameters, each, permit, deadline)

    @router.post("/pose", summary="Find people and their keypoints", **POSE_DOCUMENT)
    async def pose(request: Request, asked: _Admitted = Depends(admitted)) -> Response:
        call = current_call()
        many = len(asked.images)
        if many == 1:
            result = await while_connected(request, asked.estimate(0))
            return _json(result.answer(call.request_id))
        results = await while_connected(request, asked.estimate_all())
        failed = [result for result in results if isinstance(result, BaseException)]
        if len(failed) == many:  # status 200, but not what a count of requests should call ok
            call.outcome = as_service_error(failed[0]).code.value
        return _json({"results": [answer_entry(result, call.request_id) for result in results]})

    @router.post(
        "/pose/overlay",
        summary="The image with the poses drawn",
        response_class=Response,  # not JSON, as the document would say
        **OVERLAY_DOCUMENT,
    )
    async def overlay(request: Request, asked: _Admitted = Depends(admitted)) -> Response:
        if len(asked.images) != 1:
            raise ServiceError(
                ErrorCode.INVALID_ARGUMENT, "image: send one image at a time", field="image"
            )
        drawn = await while_connected(request, asked.draw())
        return Response(drawn, media_type="image/jpeg")

    @router.get(
        "/models", summary="What is loaded", response_model=ModelsResponse, responses=PROBLEMS
    )
    async def models() -> dict[str, object]:
        names, size, cycles = runtime.models, runtime.input_size, runtime.cycles
        if names is None or size is None or cycles is None:
            raise ServiceError(
                ErrorCode.UNAVAILABLE, "the models are not loaded yet", retry_after_s=2.0
            )
        return {
            "models": asdict(names),
            "keypoints": KEYPOINT_NAMES,
            "skeleton": EDGES,
            "input_size": dict(zip(("width", "height"), size, strict=True)),
            "cycles": cycles._asdict(),
        }

    return router


def operator_routes(runtime: Runtime, *, metrics: bool) -> APIRouter:
    """Health, and `metrics` where wanted; open to everyone who reaches the port."""
    router = APIRouter(tags=["operation"])

    @router.head("/livez", include_in_schema=False)
    @router.get("/livez", summary="Is the process well?", responses={503: PROBLEMS[503]})
    async def livez() -> Health:
        return _healthy(runtime.not_live, "alive")

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", summary="Is new work welcome?", responses={503: PROBLEMS[503]})
    async def readyz() -> Health:
        return _healthy(runtime.not_ready, "ready")

    if metrics:

        @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
        async def exposition() -> Response:
            return Response(runtime.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return router


def _healthy(trouble: Callable[[], str | None], word: str) -> Health:
    reason = trouble()
    if reason is not None:
        raise ServiceError(ErrorCode.UNAVAILABLE, f"the service is {reason}", retry_after_s=2.0)
    return Health(status=word)


def _json(value: object) -> Response:
    return Response(to_json(value), media_type="application/json")
