"""Messages of the gRPC clients: typed values to messages and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import grpc

from sdpose_client.answers import Box, Keypoint, Person, PoseAnswer, Size, StreamAnswer
from sdpose_client.connections import checked_header, not_connected, tls_mistake
from sdpose_client.errors import ErrorCode, ServiceError, error_named, invalid_argument, shortened
from sdpose_client.requests import AFFINITY_HEADER, Ask, StreamAsk, StreamFrame
from sdpose_client.v1 import pose_pb2

T = TypeVar("T")
# For answers that never reached our own code, such as an oversized message or a dead port.
_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: ErrorCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED: ErrorCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: ErrorCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND: ErrorCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: ErrorCode.ALREADY_EXISTS,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE: ErrorCode.UNAVAILABLE,
    # A server that ends cancels requests that it has not begun. What a client
    # itself cancels does not get here.
    grpc.StatusCode.CANCELLED: ErrorCode.UNAVAILABLE,
}
# The first words of gRPC if no connection was made.
_NOT_CONNECTED = ("failed to connect to all addresses", "errors resolving")
_PRIORITIES = {
    None: pose_pb2.PRIORITY_UNSPECIFIED,
    "high": pose_pb2.PRIORITY_HIGH,
    "normal": pose_pb2.PRIORITY_NORMAL,
    "low": pose_pb2.PRIORITY_LOW,
}
_DROPS = {
    None: pose_pb2.DROP_POLICY_UNSPECIFIED,
    "latest": pose_pb2.DROP_POLICY_LATEST,
    "none": pose_pb2.DROP_POLICY_NONE,
}


def request_message(image: bytes, ask: Ask) -> pose_pb2.EstimatePoseRequest:
    """The request for one image. Raises `ServiceError` if no message can hold it."""
    message = pose_pb2.EstimatePoseRequest(image=image, options=options_from(ask))
    _add_boxes(message, ask.boxes)
    return message


def _add_boxes(
    message: pose_pb2.EstimatePoseRequest | pose_pb2.StreamPoseRequest, boxes: Sequence[Box] | None
) -> None:
    if boxes is None:
        return
    message.boxes.SetInParent()  # an empty list is something else than none
    for box in boxes:
        message.boxes.boxes.add(x=box.x, y=box.y, width=box.width, height=box.height)


def options_from(ask: Ask) -> pose_pb2.PoseOptions:
    """The options without the boxes. Raises `ServiceError` for numbers that do not fit."""
    for name, value, allowed in (
        ("max_people", ask.max_people, "1 to 1000"),
        ("cycles", ask.cycles, "0 to 8"),
    ):  # the service checks the rest: these are no uint32
        if value is not None and not (isinstance(value, int) and 0 <= value < 2**32):
            raise invalid_argument(name, f"must be {allowed}, got {value!r}")
    return pose_pb2.PoseOptions(
        max_people=ask.max_people,
        min_score=ask.min_score,
        min_keypoint_score=ask.min_keypoint_score,
        cycles=ask.cycles,
        flip_test=ask.flip_test,
        priority=_one_of("priority", ask.priority, _PRIORITIES),
        suppress=ask.suppress,
    )


def _one_of(field: str, given: str | None, values: Mapping[str | None, T]) -> T:
    if given not in values:
        names = ", ".join(filter(None, values))
        raise invalid_argument(field, f"must be one of {names}, got {shortened(given)}")
    return values[given]


def stream_config(ask: Ask, stream: StreamAsk) -> pose_pb2.StreamPoseRequest:
    """The first message of a stream. Raises `ServiceError` for what no message can say."""
    if ask.boxes is not None:
        raise invalid_argument("boxes", "boxes of a stream belong to its frames")
    every = stream.detect_every
    if isinstance(every, int) and not 1 <= every < 2**32:
        raise invalid_argument("detect_every", f"{every} is out of range")
    config = pose_pb2.StreamConfig(
        options=options_from(ask),
        tracking=stream.tracking,
        smoothing=stream.smoothing,
        detect_every=0 if every == "auto" else every,
        drop=_one_of("drop", stream.drop, _DROPS),
        resume_token=stream.resume_token,
    )
    return pose_pb2.StreamPoseRequest(config=config)


def frame_message(frame: bytes | StreamFrame) -> pose_pb2.StreamPoseRequest:
    """The message of one frame."""
    if isinstance(frame, bytes):
        return pose_pb2.StreamPoseRequest(image=frame)
    message = pose_pb2.StreamPoseRequest(
        image=frame.image, sequence=frame.sequence, timestamp=frame.timestamp
    )
    _add_boxes(message, frame.boxes)
    return message


def stream_answer_from(message: pose_pb2.StreamPoseResponse | None) -> StreamAnswer:
    """The typed answer of one frame. Raises as `answer_from`."""
    if message is None:
        raise _damaged()
    outcome: PoseAnswer | ServiceError
    if message.HasField("error"):
        error = message.error
        outcome = error_named(error.code, error.message, field=error.field or None)
    elif message.HasField("result"):
        outcome = answer_from(message.result)
    else:
        raise _incomplete("outcome")
    return StreamAnswer(
        sequence=message.sequence,
        timestamp=message.timestamp if message.HasField("timestamp") else None,
        dropped=message.dropped,
        outcome=outcome,
        resume_token=message.resume_token if message.HasField("resume_token") else None,
    )


def answer_from(message: pose_pb2.EstimatePoseResponse | None) -> PoseAnswer:
    """The typed answer of a message; None is what `grpc.aio` makes of one that it cannot read.

    Raises `ServiceError` (internal) for that, and for one that lacks what every answer has.
    """
    if message is None:
        raise _damaged()
    if not message.HasField("image"):
        raise _incomplete("image")
    models = message.models
    return PoseAnswer(
        people=tuple(
            Person(
                Box(person.box.x, person.box.y, person.box.width, person.box.height),
                person.score,
                tuple(
                    Keypoint(
                        point.name,
                        point.x,
                        point.y,
                        point.score,
                        point.visibility if point.HasField("visibility") else None,
                    )
                    for point in person.keypoints
                ),
                person.id if person.HasField("id") else None,
            )
            for person in message.people
        ),
        image=Size(message.image.width, message.image.height),
        timings_ms=dict(message.timings_ms),
        models={
            "student": models.student,
            "detector": models.detector,
            "backend": models.backend,
            "device": models.device,
        },
        request_id=message.request_id,
    )


def _damaged() -> ServiceError:
    message = "a damaged answer: it was cut on its way, or is not the service's"
    return ServiceError(ErrorCode.INTERNAL, message)


def _incomplete(field: str) -> ServiceError:
    return ServiceError(
        ErrorCode.INTERNAL, f"an answer without {field!r}: the service is of another version"
    )


def error_from(
    error: grpc.RpcError, target: str = "the service", *, encrypted: bool = False
) -> ServiceError:
    """The service's own error out of a failed call, or that of the connection to `target`."""
    details = error.details() or error.code().name.lower()
    if error.code() is grpc.StatusCode.UNAVAILABLE and details.startswith(_NOT_CONNECTED):
        about_the_certificate = details.partition("CERTIFICATE_VERIFY_FAILED: ")[2]
        mistake = tls_mistake(target, details, about_the_certificate.removesuffix(": OK"))
        if mistake is not None:
            return mistake
        reason = details.rpartition(": ")[2].strip("[] ")
        return not_connected(target, reason, encrypted=encrypted)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        message = f"{target} has no such method: the service is of another version, or another one"
        return ServiceError(ErrorCode.INTERNAL, message)
    if details == "Exception deserializing response!":
        return _damaged()
    trailing: Mapping[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
    code = trailing.get("sdpose-error-code")
    if code is None and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # From gRPC itself, which has one status for a message too large and for too many calls.
        too_large = "larger than max" in (error.details() or "")
        code = ErrorCode.PAYLOAD_TOO_LARGE if too_large else ErrorCode.OVERLOADED
    after = trailing.get("retry-after")
    otherwise = _BY_STATUS.get(error.code(), ErrorCode.INTERNAL)
    if code is None and otherwise is ErrorCode.UNAVAILABLE:
        details = f"the connection to {target} failed: {details}"
    elif code is None and otherwise is ErrorCode.DEADLINE_EXCEEDED:
        details = f"no answer of {target} in time"
    return error_named(
        code or otherwise,
        details,
        field=trailing.get("sdpose-error-field"),
        retry_after_s=float(after) if after and after.isdecimal() else None,
        otherwise=otherwise,
    )


def call_metadata(
    api_key: str | None, request_id: str | None, affinity: str | None = None
) -> list[tuple[str, str]]:
    """The key, the id and the stream's name that a call shows, if there are any."""
    pairs = (
        ("x-api-key", api_key),
        ("x-request-id", checked_header("request_id", request_id)),
        (AFFINITY_HEADER, checked_header("affinity", affinity)),
    )
    return [(name, value) for name, value in pairs if value is not None]
