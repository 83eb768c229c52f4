"""The text messages of `WS /pose/stream`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sdpose_core.types import Floats
from service.errors import invalid_argument
from service.parameters import check_caller_boxes

_NAMES = {"config", "frame"}
_FIELDS = ("sequence", "timestamp", "boxes")


@dataclass(frozen=True, slots=True)
class FrameAbout:
    """What a client tells of its next image; as the fields of `StreamPoseRequest`."""

    sequence: int | None = None
    timestamp: float | None = None
    boxes: Floats | None = None


def text_message(text: str | None) -> tuple[str, dict[str, Any]]:
    """Name and object of a message `{name: {...}}`, which is a config or tells of a frame.

    Raises `ServiceError` invalid_argument where it is neither.
    """
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError):
        message = None
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
    if timestamp is not None:
        if type(timestamp) not in (int, float):
            raise invalid_argument("timestamp", "expected a number of seconds")
        timestamp = float(timestamp)
    if boxes is not None:
        if not isinstance(boxes, list):
            raise invalid_argument("boxes", "expected a list")
        boxes = check_caller_boxes(boxes, max_boxes)
    return FrameAbout(sequence, timestamp, boxes)
