"""The paths of the REST front end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json

from sdpose_core.types import Floats
from service.admission.door import Admission
from service.admission.ticket import Ticket
from service.errors import ErrorCode, ServiceError, as_service_error, unavailable
from service.json_text import most_values
from service.parameters import PoseParameters, parse_boxes, parse_parameters
from service.pipeline.results import PoseResult
from service.rest.body import BodyLimits, read_body
from service.rest.callers import KEYS, TICKET, callers_of
from service.rest.connection import while_connected
from service.rest.documentation import OVERLAY_DOCUMENT, POSE_DOCUMENT, PROBLEMS
from service.rest.errors import answer_entry
from service.rest.schemas import Health, ModelsResponse
from service.runtime.runtime import Runtime
from service.scheduling.turns import Turn
from service.telemetry.calls import current_call


@dataclass(frozen=True, slots=True)
class _Images:
    """An admitted request whose body was read: its images, and the boxes of each."""

    images: list[bytes]
    parameters: PoseParameters
    boxes: Sequence[Floats | None]
    ticket: Ticket
    admission: Admission

    @property
    def turn(self) -> Turn:
        return self.ticket.turn(self.parameters.priority, self.parameters.deadline_ms)


def pose_routes(runtime: Runtime) -> APIRouter:
    """Routes that take images; with keys only, if keys are configured."""
    settings = runtime.settings
    limits = BodyLimits(
        max_request_bytes=int(settings.max_request_mb * 2**20),
        max_image_bytes=int(settings.max_image_mb * 2**20),
        max_images=settings.max_images,
        max_values=most_values(settings.max_boxes, settings.max_images),
    )

    router = APIRouter(dependencies=KEYS, tags=["pose"])

    async def admitted(request: Request) -> AsyncIterator[_Images]:
        """The checked request; a drain waits, and its body counts, until the answer is sent."""
        ticket: Ticket = request.scope[TICKET]
        # All that can reject it comes first: then its body is not read.
        with runtime.door.enter(ticket) as admission:
            # In one thread for all: each that computes keeps the interpreter from the event loop.
            read = partial(runtime.body_pool.run, turn=Turn(ticket.caller.share))
            body = await read_body(request, limits, admission, read)
            raw = dict(body.parameters)
            boxes = raw.pop("boxes", None)
            parameters = parse_parameters(raw)
            many = len(body.images)
            each = [None] * many if boxes is None else parse_boxes(boxes, many, settings.max_boxes)
            yield _Images(body.images, parameters, each, ticket, admission)

    async def estimate_all(posted: _Images) -> list[PoseResult | BaseException]:
        async def estimate(image: bytes, boxes: Floats | None) -> PoseResult:
            result = await runtime.pipeline.estimate(
                image, posted.parameters, boxes, turn=posted.turn
            )
            posted.admission.answered(len(result.poses))
            return result

        estimates = map(estimate, posted.images, posted.boxes)
        return await asyncio.gather(*estimates, return_exceptions=True)

    @router.post("/pose", summary="Find people and their keypoints", **POSE_DOCUMENT)
    async def pose(request: Request, posted: _Images = Depends(admitted)) -> Response:
        call = current_call()
        if len(posted.images) == 1:
            estimate = runtime.pipeline.estimate(
                posted.images[0], posted.parameters, posted.boxes[0], turn=posted.turn
            )
            result = await while_connected(request, estimate)
            posted.admission.answered(len(result.poses))
            return _json(result.answer(call.request_id))
        results = await while_connected(request, estimate_all(posted))
        failed = [result for result in results if isinstance(result, BaseException)]
        if len(failed) == len(results):  # status 200, but not what a count of requests calls ok
            call.outcome = as_service_error(failed[0]).code.value
        return _json({"results": [answer_entry(result, call.request_id) for result in results]})

    @router.post(
        "/pose/overlay",
        summary="The image with the poses drawn",
        response_class=Response,  # not JSON, as the document would say
        **OVERLAY_DOCUMENT,
    )
    async def overlay(request: Request, posted: _Images = Depends(admitted)) -> Response:
        if len(posted.images) != 1:
            raise ServiceError(
                ErrorCode.INVALID_ARGUMENT, "image: send one image at a time", field="image"
            )
        turn = posted.turn
        estimate = runtime.pipeline.estimate(
            posted.images[0], posted.parameters, posted.boxes[0], turn=turn, keep_image=True
        )
        result = await while_connected(request, estimate)
        posted.admission.answered(len(result.poses))
        drawn = await while_connected(request, runtime.pipeline.draw(result, turn))
        return Response(drawn, media_type="image/jpeg")

    identify = Depends(callers_of(runtime.access))

    @router.get(
        "/models",
        summary="What is loaded",
        dependencies=[identify],
        response_model=ModelsResponse,
        responses=PROBLEMS,
    )
    async def models() -> dict[str, object]:
        pipeline = runtime.pipeline
        return {
            "models": asdict(pipeline.models),
            "keypoints": pipeline.skeleton.keypoints,
            "skeleton": pipeline.skeleton.edges,
            "input_size": dict(zip(("width", "height"), pipeline.input_size, strict=True)),
            "cycles": pipeline.cycles._asdict(),
        }

    return router


def operator_routes(runtime: Runtime, *, metrics: bool) -> APIRouter:
    """Health, and metrics if `metrics`; open to everyone who reaches the port."""
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
        raise unavailable(f"the service is {reason}")
    return Health(status=word)


def _json(value: object) -> Response:
    return Response(to_json(value), media_type="application/json")
