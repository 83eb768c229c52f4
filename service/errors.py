"""The one error vocabulary of the service.

Every error that a client may see is a `ServiceError` with an `ErrorCode`. The front ends
translate codes: `service.rest.errors` to HTTP, `service.rpc.errors` to gRPC.
"""

from __future__ import annotations

import reprlib
from enum import StrEnum


class ErrorCode(StrEnum):
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


INTERNAL_MESSAGE = "the service failed; the operator finds the cause under the request id"


_SHOWN = 80
_repr = reprlib.Repr()
_repr.maxlevel = 2  # a caller's nested lists must not cost time
_repr.maxstring = _repr.maxother = _SHOWN


def shortened(value: object) -> str:
    """A value as messages may show it: its repr, at most 80 characters of it."""
    text = _repr.repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def invalid_argument(field: str, message: str) -> ServiceError:
    """A bad parameter; `field` is its name as the caller wrote it, truncated if long."""
    field = field[:_SHOWN]
    return ServiceError(ErrorCode.INVALID_ARGUMENT, f"{field}: {message}", field=field)


def overloaded(message: str, retry_after_s: float = 1.0) -> ServiceError:
    """More than can be done now; `retry_after_s` is the time after which a retry makes sense."""
    return ServiceError(ErrorCode.OVERLOADED, message, retry_after_s=retry_after_s)


def unavailable(message: str) -> ServiceError:
    """The service takes no work now, such as at its start or end."""
    return ServiceError(ErrorCode.UNAVAILABLE, message, retry_after_s=2.0)


def stopping() -> ServiceError:
    """The error of work that has not begun when the process ends."""
    return unavailable("the service is stopping")


def deadline_exceeded(where: str) -> ServiceError:
    """The caller's deadline passed; `where` names the step."""
    return ServiceError(ErrorCode.DEADLINE_EXCEEDED, f"the deadline passed {where}")


def without_frames(error: ServiceError) -> ServiceError:
    """The error without traceback, context and cause: docs/decisions/0015-memory.md."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def as_service_error(error: BaseException) -> ServiceError:
    """The error itself if callers may see it, else `internal` without any detail."""
    if isinstance(error, ServiceError):
        return error
    return ServiceError(ErrorCode.INTERNAL, INTERNAL_MESSAGE)
