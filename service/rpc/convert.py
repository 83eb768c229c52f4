"""Messages of the contract to the pipeline's values, and results to messages."""

from __future__ import annotations

from dataclasses import asdict

from sdpose_client.v1 import pose_pb2
from sdpose_core.types import Floats
from service.cameras.camera import CameraAnswer, CameraEvent, CameraState
from service.errors import ServiceError, invalid_argument
from service.parameters import (
    PoseParameters,
    Priority,
    check_caller_boxes,
    check_count,
    parse_parameters,
)
from service.pipeline.results import PoseResult
from service.streams.pose_stream import FrameAnswer
from service.streams.settings import Drop, StreamSettings, parse_stream_settings

_PRIORITIES = {
    pose_pb2.PRIORITY_UNSPECIFIED: None,
    pose_pb2.PRIORITY_HIGH: Priority.HIGH,
    pose_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    pose_pb2.PRIORITY_LOW: Priority.LOW,
}


_DROPS = {
    pose_pb2.DROP_POLICY_UNSPECIFIED: Drop.LATEST,
    pose_pb2.DROP_POLICY_LATEST: Drop.LATEST,
    pose_pb2.DROP_POLICY_NONE: Drop.NONE,
}


_STATES = {
    CameraState.CONNECTING: pose_pb2.CAMERA_STATE_CONNECTING,
    CameraState.LIVE: pose_pb2.CAMERA_STATE_LIVE,
    CameraState.BROKEN: pose_pb2.CAMERA_STATE_BROKEN,
    CameraState.ENDED: pose_pb2.CAMERA_STATE_ENDED,
}


def parameters_of(options: pose_pb2.PoseOptions) -> PoseParameters:
    """The same checks as REST makes. Raises `ServiceError` invalid_argument."""
    return parse_parameters(_given(options))


def stream_settings_of(config: pose_pb2.StreamConfig) -> tuple[StreamSettings, PoseParameters]:
    """The same checks as the WebSocket makes. Raises `ServiceError` invalid_argument."""
    given: dict[str, object] = {"options": _given(config.options)}
    for name in ("tracking", "smoothing", "resume_token"):
        if config.HasField(name):
            given[name] = getattr(config, name)
    given["detect_every"] = config.detect_every or "auto"
    drop = _DROPS.get(config.drop)
    if drop is None:
        raise invalid_argument("drop", f"unknown value {config.drop}")
    return parse_stream_settings({**given, "drop": drop})


def _given(options: pose_pb2.PoseOptions) -> dict[str, object]:
    given: dict[str, object] = {"flip_test": options.flip_test}
    for name in ("max_people", "min_score", "min_keypoint_score", "cycles", "suppress"):
        if options.HasField(name):
            given[name] = getattr(options, name)
    if options.priority not in _PRIORITIES:
        raise invalid_argument("priority", f"unknown value {options.priority}")
    return {**given, "priority": _PRIORITIES[options.priority]}


def boxes_of(
    request: pose_pb2.EstimatePoseRequest | pose_pb2.StreamPoseRequest, max_boxes: int
) -> Floats | None:
    """`(N, 4)` xyxy pixels if the client gives boxes. Raises `ServiceError` for bad ones."""
    if not request.HasField("boxes"):
        return None
    check_count(len(request.boxes.boxes), max_boxes)
    corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in request.boxes.boxes]
    return check_caller_boxes(corners, max_boxes)


def answer_of(result: PoseResult, request_id: str) -> pose_pb2.EstimatePoseResponse:
    """The message of one result: the contract has the fields of the JSON answer."""
    return pose_pb2.EstimatePoseResponse(**result.answer(request_id))


def frame_answer_of(answer: FrameAnswer, request_id: str) -> pose_pb2.StreamPoseResponse:
    """The message of one frame of a stream."""
    message = pose_pb2.StreamPoseResponse(
        sequence=answer.sequence,
        timestamp=answer.timestamp,
        dropped=answer.dropped,
        resume_token=answer.resume_token,
    )
    outcome = answer.outcome
    if isinstance(outcome, ServiceError):
        message.error.code = outcome.code.value
        message.error.message = outcome.message
        message.error.field = outcome.field or ""
    else:
        message.result.CopyFrom(answer_of(outcome, request_id))
    return message


def camera_event_of(event: CameraEvent) -> pose_pb2.WatchCameraResponse:
    """The message of what a camera saw, or of how it is now."""
    if isinstance(event, CameraAnswer):
        return pose_pb2.WatchCameraResponse(frame=frame_answer_of(event.answer, event.request_id))
    values = {**asdict(event), "state": _STATES[event.state]}
    return pose_pb2.WatchCameraResponse(status=pose_pb2.CameraStatus(**values))
