"""The error vocabulary in gRPC: status codes, and what the trailing metadata adds."""

from __future__ import annotations

import math

import grpc

from service.errors import ErrorCode, ServiceError

GRPC_STATUS: dict[ErrorCode, grpc.StatusCode] = {
    ErrorCode.INVALID_IMAGE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.PAYLOAD_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    ErrorCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorCode.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    ErrorCode.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.INTERNAL: grpc.StatusCode.INTERNAL,
}
CODE_KEY = "sdpose-error-code"
FIELD_KEY = "sdpose-error-field"
RETRY_KEY = "retry-after"
REQUEST_ID_KEY = "x-request-id"

Metadata = tuple[tuple[str, str], ...]


def error_metadata(error: ServiceError, request_id: str) -> Metadata:
    """Trailing metadata: the code of the vocabulary, the field, the seconds before a retry."""
    metadata = [(REQUEST_ID_KEY, request_id), (CODE_KEY, error.code.value)]
    if error.field is not None:
        metadata.append((FIELD_KEY, error.field))
    if error.code in (ErrorCode.OVERLOADED, ErrorCode.UNAVAILABLE):
        metadata.append((RETRY_KEY, str(max(1, math.ceil(error.retry_after_s or 1.0)))))
    return tuple(metadata)
