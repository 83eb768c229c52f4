"""The one error vocabulary of the service and its clients.

Every error that a client may see is a `ServiceError` with an `ErrorCode`.
"""

from __future__ import annotations

import reprlib
from enum import Enum


class ErrorCode(str, Enum):
    """Error codes; they mean the same over REST and gRPC."""

    INVALID_IMAGE = "invalid_image"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_ARGUMENT = "invalid_argument"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"

    __str__ = str.__str__  # as StrEnum, which Python 3.10 has not


class ServiceError(Exception):
    """An error that is safe to show to the caller.

    `field` names the parameter at fault; `retry_after_s` is the time after which to try again.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


_SHOWN = 80
_repr = reprlib.Repr()
_repr.maxlevel = 2  # a caller's nested lists must not cost time
_repr.maxstring = _repr.maxother = _SHOWN


def shortened(value: object) -> str:
    """A value as messages may show it: its repr, at most 80 characters of it."""
    text = _repr.repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def error_named(
    name: str,
    message: str,
    *,
    field: str | None = None,
    retry_after_s: float | None = None,
    otherwise: ErrorCode = ErrorCode.INTERNAL,
) -> ServiceError:
    """The error of a code's name; of one that only newer services have, `otherwise` with both."""
    try:
        code = ErrorCode(name)
    except ValueError:
        code, message = otherwise, f"{name}: {message}"
    return ServiceError(code, message, field=field, retry_after_s=retry_after_s)


def invalid_argument(field: str, message: str) -> ServiceError:
    """A bad parameter; `field` is its name as the caller wrote it, truncated if long."""
    field = field[:_SHOWN]
    return ServiceError(ErrorCode.INVALID_ARGUMENT, f"{field}: {message}", field=field)
