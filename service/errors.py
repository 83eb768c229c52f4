"""Errors of the service: the vocabulary that it shares with its clients, and the errors it makes.

The front ends translate codes: `service.rest.errors` to HTTP, `service.rpc.errors` to gRPC.
"""

from __future__ import annotations

from sdpose_client.errors import ErrorCode, ServiceError, invalid_argument, shortened

__all__ = [
    "INTERNAL_MESSAGE",
    "ErrorCode",
    "ServiceError",
    "as_service_error",
    "deadline_exceeded",
    "invalid_argument",
    "overloaded",
    "shortened",
    "stopping",
    "unavailable",
    "without_frames",
]

INTERNAL_MESSAGE = "the service failed; the operator finds the cause under the request id"


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
