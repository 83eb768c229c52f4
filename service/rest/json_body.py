"""JSON bodies: images in base64 with the parameters beside them, and small objects."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request

from service.errors import ErrorCode, ServiceError, invalid_argument, shortened
from service.json_text import parsed_json, read_json

_SMALL = 64 * 2**10
_SMALL_VALUES = 256
MAX_FIELDS = 32
"""Fields of a form or a JSON object, beside the images."""
_PIECE = 2**18  # characters, a multiple of four
_SPACE = re.compile(r"\s+")
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def parse_json(
    pieces: list[bytes], field: str, max_images: int
) -> tuple[list[bytes], dict[str, str]]:
    """The image files and the raw parameters of a JSON body, whose values have been counted.

    It may take tenths of a second, in steps after each of which other threads get their turn.

    Args:
        pieces: Of an object whose `field` is one image file in base64 (a `data:` URL is fine), or a
            list of them. Its other members are parameters, as plain values or as text.
        field: Name of the member with the images.
        max_images: Maximum number of images.

    Raises `ServiceError` invalid_argument or payload_too_large.
    """
    body = parsed_json(b"".join(pieces), "body")
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
    if len(body) > MAX_FIELDS:
        raise invalid_argument("body", f"more than {MAX_FIELDS} parameters beside {field}")
    parameters = {name: _as_text(given) for name, given in body.items() if given is not None}
    return [_decode(image, field) for image in images], parameters


def _decode(text: Any, field: str) -> bytes:
    if not isinstance(text, str):
        raise invalid_argument(field, f"expected base64 text, got {type(text).__name__}")
    head = _DATA_URL.match(text)
    start = head.end() if head else 0
    # Encoders may break lines; nothing else may stand between the characters.
    plain = "".join(_SPACE.sub("", piece) for piece in _pieces(text, start))
    try:
        if "=" in plain[:-2]:  # it would end its piece, which is not the end of all
            raise ValueError
        return b"".join(base64.b64decode(piece, validate=True) for piece in _pieces(plain))
    except ValueError:
        raise invalid_argument(field, f"not base64: {shortened(text)}") from None


def _pieces(text: str, start: int = 0) -> Iterator[str]:
    return (text[at : at + _PIECE] for at in range(start, len(text), _PIECE))


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
    return read_json(bytes(body), _SMALL_VALUES, "body")
