"""The error vocabulary in HTTP: status codes and RFC 9457 problem documents."""

from __future__ import annotations

import math

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from service.errors import ErrorCode, ServiceError, as_service_error
from service.pipeline.results import PoseResult
from service.streams.pose_stream import FrameAnswer
from service.telemetry.calls import current_call

HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.INVALID_IMAGE: 400,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ErrorCode.INVALID_ARGUMENT: 422,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.ALREADY_EXISTS: 409,
    ErrorCode.OVERLOADED: 429,
    ErrorCode.DEADLINE_EXCEEDED: 504,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}
PROBLEM_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499
"""Status in the log where the client left before its answer, as nginx has it."""

_log = structlog.get_logger(__name__)


def problem(error: ServiceError, request_id: str, status: int | None = None) -> JSONResponse:
    """The problem document of one error, with Retry-After if trying again makes sense."""
    status = status or HTTP_STATUS[error.code]
    body: dict[str, object] = {
        "type": "about:blank",
        "title": error.code.value.replace("_", " "),
        "status": status,
        "detail": error.message,
        "code": error.code.value,
        "request_id": request_id,
    }
    headers: dict[str, str] = {}
    if error.field is not None:
        body["field"] = error.field
    after_s = _retry_after_s(error)
    if after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(after_s)))
    if error.code is ErrorCode.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers, PROBLEM_TYPE)


def answer_entry(outcome: PoseResult | BaseException, request_id: str) -> dict[str, object]:
    """The JSON value of one image among several: its answer, or its own error."""
    if isinstance(outcome, PoseResult):
        return outcome.answer(request_id)
    shown = as_service_error(outcome)
    if shown is not outcome:
        _log.error("image failed", exc_info=outcome)
    entry: dict[str, object] = {"code": shown.code.value, "detail": shown.message}
    if shown.field is not None:
        entry["field"] = shown.field
    after_s = _retry_after_s(shown)
    if after_s is not None:
        entry["retry_after_s"] = round(after_s, 3)
    return {"error": entry}


def frame_entry(answer: FrameAnswer, request_id: str) -> dict[str, object]:
    """The JSON value of one frame of a stream: its number, and its answer or its own error."""
    entry: dict[str, object] = {"sequence": answer.sequence, "dropped": answer.dropped}
    if answer.timestamp is not None:
        entry["timestamp"] = answer.timestamp
    if answer.resume_token is not None:
        entry["resume_token"] = answer.resume_token
    return {**entry, **answer_entry(answer.outcome, request_id)}


def _retry_after_s(error: ServiceError) -> float | None:
    if error.code in (ErrorCode.OVERLOADED, ErrorCode.UNAVAILABLE):
        return error.retry_after_s or 1.0
    return None


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Exception handler for what the framework rejects itself, such as an unknown path."""
    assert isinstance(error, HTTPException)
    call = current_call()
    code = ErrorCode.INVALID_ARGUMENT if error.status_code < 500 else ErrorCode.INTERNAL
    call.outcome = code.value
    answer = problem(ServiceError(code, str(error.detail)), call.request_id, error.status_code)
    answer.headers.update(error.headers or {})
    return answer
