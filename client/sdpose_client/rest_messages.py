"""REST requests out of values, and values out of responses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import httpx

from sdpose_client.answers import Box, PoseAnswer
from sdpose_client.connections import unreached
from sdpose_client.errors import ErrorCode, ServiceError, error_named, invalid_argument
from sdpose_client.requests import Ask

BoxesOfEach = Sequence[Sequence[Box] | None]

# For answers that never reached our own code, such as those of a proxy in front of it.
_BY_STATUS = {
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.PERMISSION_DENIED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    429: ErrorCode.OVERLOADED,
    502: ErrorCode.UNAVAILABLE,
    503: ErrorCode.UNAVAILABLE,
    504: ErrorCode.UNAVAILABLE,
}
# Codes of a request with one image that are about that image.
_OF_AN_IMAGE = (
    ErrorCode.INVALID_IMAGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.INTERNAL,
)


def boxes_of_each(
    images: Sequence[bytes], ask: Ask, boxes: BoxesOfEach | None
) -> BoxesOfEach | None:
    """The boxes, checked to be one list, or None, for each image."""
    if boxes is None:
        return None if ask.boxes is None else [ask.boxes] * len(images)
    if ask.boxes is not None:
        raise invalid_argument("boxes", "given twice, for all images and for each")
    if len(boxes) != len(images):
        raise invalid_argument("boxes", f"{len(boxes)} entries for {len(images)} images")
    return boxes


def fields_of(ask: Ask, boxes: BoxesOfEach | None) -> dict[str, str]:
    """The request's parameters as form fields or query."""
    fields = {
        name: str(value)
        for name in ("max_people", "min_score", "min_keypoint_score", "cycles", "priority")
        if (value := getattr(ask, name)) is not None
    }
    if ask.flip_test:
        fields["flip_test"] = "true"
    if ask.suppress is not None:
        fields["suppress"] = str(ask.suppress).lower()
    if boxes is not None:
        fields["boxes"] = json.dumps([None if each is None else _plain(each) for each in boxes])
    elif ask.boxes is not None:
        fields["boxes"] = json.dumps(_plain(ask.boxes))
    return fields


def _plain(boxes: Sequence[Box]) -> list[dict[str, float]]:
    return [asdict(box) for box in boxes]


def checked_body(response: httpx.Response) -> bytes:
    """The body of a good response; raises the `ServiceError` of any other."""
    if response.status_code == httpx.codes.OK:
        return response.content
    raise problem_error(response.status_code, response.headers, response.content)


def problem_error(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error of a response other than 200; `headers` compare names without case."""
    after = headers.get("retry-after", "")
    after_s = float(after) if after.isdecimal() else None
    otherwise = _BY_STATUS.get(status, ErrorCode.INTERNAL)
    try:
        problem = json.loads(body)
        return error_named(
            str(problem["code"]),
            str(problem["detail"]),
            field=problem.get("field"),
            retry_after_s=after_s,
            otherwise=otherwise,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"an answer of status {status} that is not the service's"
        return ServiceError(otherwise, message, retry_after_s=after_s)


def failed(base_url: str, error: httpx.RequestError) -> ServiceError:
    """The `ServiceError` of a request without an answer, or with a damaged one."""
    if isinstance(error, httpx.TimeoutException):
        return ServiceError(ErrorCode.DEADLINE_EXCEEDED, f"no answer of {base_url} in time")
    if not isinstance(error, httpx.TransportError):
        return ServiceError(ErrorCode.INTERNAL, f"a damaged answer of {base_url}: {error}")
    return unreached(base_url, error, encrypted=base_url.startswith("https"))


def of_one_image(images: Sequence[bytes], error: ServiceError) -> list[PoseAnswer | ServiceError]:
    """The error as the only image's own if it is about the image; else raises it."""
    if len(images) == 1 and error.code in _OF_AN_IMAGE:
        return [error]
    raise error
