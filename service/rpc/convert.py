"""Messages of the contract to the pipeline's values, and results to messages."""

from __future__ import annotations

from protos.sdpose.v1 import pose_pb2
from service.errors import ServiceError, invalid_argument
from service.parameters import PoseParameters, Priority, check_caller_boxes, parse_parameters
from service.pipeline.options import PoseOptions
from service.pipeline.results import PoseResult
from service.streams.sessions import FrameAnswer

_PRIORITIES = {
    pose_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    pose_pb2.PRIORITY_HIGH: Priority.HIGH,
    pose_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    pose_pb2.PRIORITY_LOW: Priority.LOW,
}


def parameters_of(options: pose_pb2.PoseOptions) -> PoseParameters:
    """The same checks as REST makes. Raises `ServiceError` invalid_argument."""
    given: dict[str, object] = {"flip_test": options.flip_test}
    for name in ("max_people", "min_score", "min_keypoint_score"):
        if options.HasField(name):
            given[name] = getattr(options, name)
    if options.HasField("cycles"):
        given["cycles"] = options.cycles or "auto"
    priority = _PRIORITIES.get(options.priority)
    if priority is None:
        raise invalid_argument("priority", f"unknown value {options.priority}")
    return parse_parameters({**given, "priority": priority})


def options_of(
    parameters: PoseParameters, boxes: pose_pb2.Boxes | None, max_boxes: int
) -> PoseOptions:
    """How the image is to be looked at. Raises `ServiceError` for bad boxes."""
    given = None
    if boxes is not None:
        corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes.boxes]
        given = check_caller_boxes(corners, max_boxes)
    return PoseOptions.of(parameters, given)


def answer_of(result: PoseResult, request_id: str) -> pose_pb2.EstimatePoseResponse:
    """The message of one result."""
    answer = pose_pb2.EstimatePoseResponse(
        image=pose_pb2.ImageSize(width=result.width, height=result.height),
        timings_ms=result.timings_ms,
        models=pose_pb2.Models(
            student=result.models.student,
            detector=result.models.detector,
            backend=result.models.backend,
            device=result.models.device,
        ),
        request_id=request_id,
    )
    boxes = result.poses.boxes.tolist()
    scores = result.poses.scores.tolist()
    for index, ((x1, y1, x2, y2), score) in enumerate(zip(boxes, scores, strict=True)):
        person = answer.people.add(
            box=pose_pb2.Box(x=x1, y=y1, width=x2 - x1, height=y2 - y1), score=score
        )
        for point in result.keypoints(index):
            person.keypoints.add(name=point.name, x=point.x, y=point.y, score=point.score)
    return answer


def frame_answer_of(
    answer: FrameAnswer[PoseResult], request_id: str
) -> pose_pb2.StreamPoseResponse:
    """The message of one frame of a stream."""
    message = pose_pb2.StreamPoseResponse(
        sequence=answer.sequence, timestamp=answer.timestamp, dropped=answer.dropped
    )
    outcome = answer.outcome
    if isinstance(outcome, ServiceError):
        message.error.code = outcome.code.value
        message.error.message = outcome.message
        message.error.field = outcome.field or ""
    else:
        message.result.CopyFrom(answer_of(outcome, request_id))
    return message
