"""`WS /pose/stream`: image files in as binary messages, one JSON text message back per frame.

Text messages are JSON objects: `{"config": {...}}` before the first frame sets what `StreamConfig`
sets over gRPC; `{"frame": {...}}` has sequence, timestamp and boxes of the image that follows.

Pages cannot set headers on a WebSocket, so a key may also come as a subprotocol: the client offers
`sdpose.v1` and `sdpose.key.` followed by the key in base64url without padding; the server takes
the former. A key in the query would be in the logs of every proxy. A stream's name for balancers
(`x-sdpose-stream`), which is no secret, may be there: `stream`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic_core import to_json
from starlette.websockets import WebSocketState

from service.errors import ErrorCode, ServiceError
from service.parameters import each_once
from service.rest.callers import caller_of_socket
from service.rest.errors import frame_entry, problem
from service.rest.middleware import check_query
from service.rest.stream_messages import FrameAbout, frame_about, text_message
from service.runtime.runtime import Runtime
from service.runtime.state import State
from service.streams.pose_stream import FrameAnswer, PoseStream
from service.streams.settings import parse_stream_settings
from service.telemetry.calls import CLIENT_GONE, Call, current_call

PATH = "/pose/stream"
PROTOCOL = "sdpose.v1"
CLOSE_CODE: dict[ErrorCode, int] = {
    ErrorCode.INVALID_IMAGE: 1007,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: 1003,
    ErrorCode.INVALID_ARGUMENT: 1008,
    ErrorCode.PAYLOAD_TOO_LARGE: 1009,
    ErrorCode.UNAUTHENTICATED: 1008,
    ErrorCode.PERMISSION_DENIED: 1008,
    ErrorCode.NOT_FOUND: 1008,
    ErrorCode.ALREADY_EXISTS: 1008,
    ErrorCode.OVERLOADED: 1013,
    ErrorCode.DEADLINE_EXCEEDED: 1008,
    ErrorCode.UNAVAILABLE: 1013,
    ErrorCode.INTERNAL: 1011,
}
"""How a connection ends by an error of the vocabulary (RFC 6455 and the IANA registry)."""
DRAINING = 1012
"""Close code of unavailable while the service stops: another replica may take over at once."""
_API = "rest_stream"
_CLOSED_BY_CLIENT = {1000, 1001, 1005}
_TOO_LARGE = 1009
_LONGEST_REASON = 123  # bytes; RFC 6455 section 5.5


def stream_routes(runtime: Runtime) -> APIRouter:
    """The WebSocket of the pose service; with keys only, if keys are configured."""
    router = APIRouter()

    @router.websocket(PATH)
    async def pose_stream(websocket: WebSocket) -> None:
        try:
            with runtime.calls.open(f"WS {PATH}", websocket.headers.get, _API) as call:
                await _serve(websocket, runtime, call)
        except ServiceError as error:
            await _reject(websocket, error, call.request_id, runtime.state)

    return router


async def _serve(websocket: WebSocket, runtime: Runtime, call: Call) -> None:
    """Runs the stream until the client leaves, which is no error. Raises `ServiceError`."""
    settings = runtime.settings
    try:
        check_query(websocket.scope)
        caller = caller_of_socket(websocket, runtime.access, settings.cors_origins)
        caller.check()
        await websocket.accept(
            PROTOCOL if PROTOCOL in websocket.scope["subprotocols"] else None,
            [(b"x-request-id", call.request_id.encode("latin-1"))],
        )
        options = each_once(websocket.query_params.multi_items())
        options.pop("stream", None)  # by its name a balancer has chosen this process
        with runtime.open_stream(caller) as stream:
            stream.configure(*parse_stream_settings({"options": options}))
            await stream.drive(
                _read(websocket, stream, options, settings.max_boxes),
                partial(_write, websocket, settings.max_deadline_ms / 1e3),
            )
    except WebSocketDisconnect as gone:
        if gone.code == _TOO_LARGE:  # the server below ended it, since a message was too large
            call.outcome = ErrorCode.PAYLOAD_TOO_LARGE.value
        elif gone.code not in _CLOSED_BY_CLIENT:
            call.outcome = CLIENT_GONE


async def _read(
    websocket: WebSocket, stream: PoseStream, options: dict[str, str], max_boxes: int
) -> None:
    """Passes the client's frames on. Raises `WebSocketDisconnect` at the end, or `ServiceError`."""
    about = FrameAbout()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        image = message.get("bytes")
        if image is not None:
            await stream.send(image, about.sequence, about.timestamp, about.boxes)
            about = FrameAbout()
            continue
        name, given = text_message(message.get("text") or "", max_boxes)
        if name == "config":
            stream.configure(*parse_stream_settings({"options": options, **given}))
        else:
            about = frame_about(given, max_boxes)


async def _write(websocket: WebSocket, limit_s: float, answer: FrameAnswer) -> None:
    """Sends one answer. Raises `WebSocketDisconnect` if the client does not read for so long."""
    text = to_json(frame_entry(answer, current_call().request_id)).decode()
    try:
        # Waits while the client's side is full; meanwhile newer frames replace older.
        async with asyncio.timeout(limit_s):
            await websocket.send_text(text)
    except TimeoutError:
        raise WebSocketDisconnect(1006, "the client does not read") from None


async def _reject(websocket: WebSocket, error: ServiceError, request_id: str, state: State) -> None:
    """An HTTP answer before the handshake, a close code and `code: message` after it."""
    if websocket.application_state is WebSocketState.CONNECTING:
        await websocket.send_denial_response(problem(error, request_id))
        return
    stopping = error.code is ErrorCode.UNAVAILABLE and state in (State.DRAINING, State.STOPPED)
    reason = f"{error.code.value}: {error.message}".encode()[:_LONGEST_REASON]
    with suppress(WebSocketDisconnect):  # the client left in the meantime
        await websocket.close(
            DRAINING if stopping else CLOSE_CODE[error.code], reason.decode(errors="ignore")
        )
