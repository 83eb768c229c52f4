"""JSON of callers, counted before it is built: a MiB of text may spell hundreds of MiB."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from service.errors import ErrorCode, ServiceError, invalid_argument

_OPENING = (b",", b"[", b"{")
"""Each value of a text is its first one, or comes right after one of these."""
_SLOW = b"\\" + bytes(range(128, 256))
"""Bytes that the parser takes one by one while no other thread of Python can run."""
_SLOW_SHARE = 16
"""Number of bytes of which one may be slow. Base64 has a line end in 76, or an escaped / in 64."""


class JsonBound:
    """Limits of one JSON text: at most `most` values, and not much that is slow to read.

    A comma within a string counts too; `field` names the text in errors.
    """

    def __init__(self, most: int, field: str) -> None:
        self._most = most
        self._field = field
        self._values = self._slow = self._size = 0

    def add(self, piece: bytes) -> None:
        """The next bytes of it. Raises `ServiceError` payload_too_large, at the first surplus."""
        self._values += sum(map(piece.count, _OPENING))
        self._slow += len(piece) - len(piece.translate(None, _SLOW))
        self._size += len(piece)
        if self._values > self._most:
            raise self._rejection(f"more than the {self._most} values allowed in its JSON")
        if self._slow > self._most + self._size // _SLOW_SHARE:
            raise self._rejection("too many characters of its JSON are escaped or beyond ASCII")

    def _rejection(self, message: str) -> ServiceError:
        message = f"{self._field}: {message}"
        return ServiceError(ErrorCode.PAYLOAD_TOO_LARGE, message, field=self._field)


def most_values(boxes: int, images: int = 1) -> int:
    """How many values a text may hold that gives so many boxes to each of so many images."""
    return 64 + images * (boxes + 1) * 8


def read_json(text: bytes | str, most: int, field: str) -> Any:
    """The value of a text of at most `most` values, however long; else as `JsonBound.add`.

    Also raises `ServiceError` invalid_argument if it is no JSON.
    """
    given = text.encode(errors="replace") if isinstance(text, str) else text
    JsonBound(most, field).add(given)
    return parsed_json(given, field)


def parsed_json(text: bytes, field: str) -> Any:
    """As `read_json`, of what has been counted."""
    try:
        return from_json(text)
    except ValueError as error:
        raise invalid_argument(field, f"not readable JSON: {error}") from None
