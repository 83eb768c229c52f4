"""JSON bodies: images in base64 with the parameters beside them, and small objects."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from pydantic_core import from_json, to_json
from starlette.requests import Request

from service.errors import ErrorCode, ServiceError, invalid_argument, shortened

_SMALL = 64 * 2**10
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def parse_json(text: bytes, field: str, max_images: int) -> tuple[list[bytes], dict[str, str]]:
    """The image files and the raw parameters of a JSON body.

    Args:
        text: An object whose `field` is one image file in base64 (a `data:` URL is fine), or a list
            of them. Its other members are parameters, as plain values or as text.
        field: Name of the member with the images.
        max_images: Maximum number of images.

    Raises `ServiceError` invalid_argument or payload_too_large.
    """
    body = read_json(text)
    if not isinstance(body, dict):
        raise invalid_argument("body", f"expected a JSON object, got {type(body).__name__}")
    value = body.pop(field, None)
    images = value if isinstance(value, list) else [value]
    if value is None or not images:
        raise invalid_argument(field, "no image in the JSON object")
    if len(images) > max_images:
        raise ServiceError(
            ErrorCode.PAYLOAD_TOO_LARGE, f"more than the {max_images} images allowed", field=field
        )
    parameters = {name: _as_text(given) for name, given in body.items() if given is not None}
    return [_decode(image, field) for image in images], parameters


def read_json(text: bytes) -> Any:
    """The value of a JSON body; raises `ServiceError` invalid_argument."""
    try:
        return from_json(text)
    except ValueError as error:
        raise invalid_argument("body", f"not readable JSON: {error}") from None


def _decode(text: Any, field: str) -> bytes:
    if not isinstance(text, str):
        raise invalid_argument(field, f"expected base64 text, got {type(text).__name__}")
    head = _DATA_URL.match(text)
    start = head.end() if head else 0
    try:
        # Encoders may break lines; nothing else may stand between the characters.
        return base64.b64decode(re.sub(r"\s+", "", text[start:]), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument(field, f"not base64: {shortened(text)}") from None


def _as_text(value: Any) -> str:
    """A parameter as the query would carry it."""
    return value if isinstance(value, str) else to_json(value).decode()


async def read_small_json(request: Request, what: str) -> object:
    """The JSON value of a body of at most 64 KiB; `what` names it in errors.

    Raises `ServiceError` unsupported_media_type, payload_too_large or invalid_argument.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":  # pages of other sites cannot send it unless CORS allows them
        raise ServiceError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, f"send {what} as application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _SMALL:
            raise ServiceError(ErrorCode.PAYLOAD_TOO_LARGE, f"{what} takes at most 64 KiB")
    return read_json(bytes(body))
