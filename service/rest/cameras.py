"""The cameras that the service itself reads: `/cameras` and what comes from each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.sse import format_sse_event
from pydantic_core import to_json

from service.access.callers import Caller
from service.access.keys import Scope
from service.cameras.broadcast import Subscription
from service.cameras.camera import CameraAnswer, CameraEvent, CameraStatus
from service.cameras.settings import CameraRequest, parse_camera
from service.rest.callers import KEYS, callers_of
from service.rest.documentation import CAMERA_PROBLEMS
from service.rest.errors import frame_entry
from service.rest.json_body import read_small_json
from service.rest.pushed import PushedResponse
from service.rest.schemas import CameraModel, CamerasResponse
from service.runtime.runtime import Runtime

PATH: Final = "/cameras"
_QUIET_S: Final = 15.0
"""After so long without news a comment is sent, since proxies end what is silent."""
_BOUNDARY: Final = "frame"

Events = tuple[CameraStatus, Subscription[CameraEvent]]


def camera_routes(runtime: Runtime) -> APIRouter:
    """Routes that add, list, watch and remove cameras; with keys only, if keys are configured."""
    cameras = runtime.cameras
    identify = callers_of(runtime.access, Scope.CAMERAS)
    any_key = callers_of(runtime.access, None)
    router = APIRouter(
        prefix=PATH,
        dependencies=KEYS,
        tags=["cameras"],
        responses=CAMERA_PROBLEMS,
    )

    async def subscribed(name: str, caller: Caller = Depends(identify)) -> AsyncIterator[Events]:
        with cameras.watch(name, caller) as events:
            yield events

    async def pictured(
        name: str, caller: Caller = Depends(identify)
    ) -> AsyncIterator[Subscription[bytes]]:
        with cameras.watch_pictures(name, caller) as images:
            yield images

    @router.post("", status_code=201, summary="Read one more camera", openapi_extra=_REQUEST)
    async def add(
        request: Request, response: Response, caller: Caller = Depends(identify)
    ) -> CameraModel:
        runtime.door.check(runtime.door.ticket(caller))
        status = cameras.add(parse_camera(await read_small_json(request, "a camera")), caller)
        response.headers["Location"] = f"{request.scope.get('root_path', '')}{PATH}/{status.name}"
        return camera_model(status)

    @router.get("", summary="The cameras that this key may watch")
    async def every(caller: Caller = Depends(any_key)) -> CamerasResponse:
        return CamerasResponse(cameras=[camera_model(status) for status in cameras.all(caller)])

    @router.get("/{name}", summary="One camera")
    async def state(name: str, caller: Caller = Depends(identify)) -> CameraModel:
        return camera_model(cameras.status(name, caller))

    @router.delete("/{name}", status_code=204, summary="Read it no more")
    async def remove(name: str, caller: Caller = Depends(identify)) -> None:
        cameras.remove(name, caller)

    @router.get("/{name}/events", response_class=_EventsResponse, summary="Its results")
    async def events(watched: Events = Depends(subscribed)) -> Response:
        """Server-sent events: `camera` has its state, first and at each change; `pose` has the
        people of one frame, as an answer of `WS /pose/stream`. The id is the frame's number.
        """
        return PushedResponse(_events(*watched), media_type=_EventsResponse.media_type)

    @router.get("/{name}/live", response_class=_LiveResponse, summary="Its live image")
    async def live(images: Subscription[bytes] = Depends(pictured)) -> Response:
        """MJPEG with the people drawn in, for an `<img>`; drawn only while someone watches."""
        return PushedResponse(_parts(images), media_type=_LiveResponse.media_type)

    return router


class _EventsResponse(Response):  # FastAPI's own takes generators only, and knows no slow client
    media_type: str = "text/event-stream"


class _LiveResponse(Response):
    media_type: str = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"


_REQUEST: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": CameraRequest.model_json_schema(),
                "example": {"name": "door", "address": "rtsp://10.0.0.5/stream1"},
            }
        },
    }
}


def camera_model(status: CameraStatus) -> CameraModel:
    """The JSON value of one camera."""
    return CameraModel.model_validate(asdict(status))


async def _events(status: CameraStatus, events: Subscription[CameraEvent]) -> AsyncIterator[bytes]:
    yield format_sse_event(event="camera", data_str=_json(camera_model(status)), retry=2000)
    while True:
        try:
            async with asyncio.timeout(_QUIET_S):
                event = await anext(events)
        except TimeoutError:
            yield format_sse_event(comment="nothing new")
            continue
        except StopAsyncIteration:
            return
        if isinstance(event, CameraAnswer):
            entry = frame_entry(event.answer, event.request_id)
            yield format_sse_event(
                event="pose", id=str(event.answer.sequence), data_str=_json(entry)
            )
        else:
            yield format_sse_event(event="camera", data_str=_json(camera_model(event)))


async def _parts(images: Subscription[bytes]) -> AsyncIterator[bytes]:
    async for image in images:
        head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
        yield head.encode() + image + b"\r\n"


def _json(value: object) -> str:
    return to_json(value, exclude_none=True).decode()
