"""The text messages of `WS /pose/stream`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdpose_core.types import Floats
from service.errors import ErrorCode, ServiceError, invalid_argument
from service.json_text import most_values, read_json
from service.parameters import check_caller_boxes

_NAMES = {"config", "frame"}
_FIELDS = ("sequence", "timestamp", "boxes")
_MAX_TEXT = 64 * 2**10
_MAX_BOX_TEXT = 256


@dataclass(frozen=True, slots=True)
class FrameAbout:
    """Number, time and boxes of the next image; as the fields of `StreamPoseRequest`."""

    sequence: int | None = None
    timestamp: float | None = None
    boxes: Floats | None = None


def text_message(text: str, max_boxes: int) -> tuple[str, dict[str, Any]]:
    """Name and object of a message `{name: {...}}`: a config, or a frame's description.

    Raises `ServiceError` payload_too_large, and invalid_argument if it is neither.
    """
    most = _MAX_TEXT + _MAX_BOX_TEXT * max_boxes
    if len(text) > most:
        raise ServiceError(
            ErrorCode.PAYLOAD_TOO_LARGE, f"a text message takes at most {most} characters"
        )
    message = read_json(text, most_values(max_boxes), "message")
    if not isinstance(message, dict) or len(message) != 1 or not message.keys() <= _NAMES:
        raise invalid_argument(
            "message", 'expected an image in a binary message, {"config": ...} or {"frame": ...}'
        )
    ((name, value),) = message.items()
    if not isinstance(value, dict):
        raise invalid_argument(name, "expected an object")
    return name, value


def frame_about(given: dict[str, Any], max_boxes: int) -> FrameAbout:
    """Checks sequence, timestamp and boxes. Raises `ServiceError`."""
    for name in given:
        if name not in _FIELDS:
            raise invalid_argument(name, f"unknown in a frame; known are {', '.join(_FIELDS)}")
    sequence, timestamp, boxes = (given.get(name) for name in _FIELDS)
    if sequence is not None and (type(sequence) is not int or sequence < 0):
        raise invalid_argument("sequence", "expected a whole number from 0 up")
    if timestamp is not None and type(timestamp) not in (int, float):
        raise invalid_argument("timestamp", "expected a number of seconds")
    if boxes is not None:
        if not isinstance(boxes, list):
            raise invalid_argument("boxes", "expected a list")
        boxes = check_caller_boxes(boxes, max_boxes)
    return FrameAbout(sequence, timestamp, boxes)
