"""Answers of the service: the values that the clients return and that OpenAPI documents.

Plain dataclasses, since a client installs neither pydantic nor numpy. On the server pydantic reads
docstrings and `metadata` (as arguments of its `Field`) for the document only: the answers that are
sent are the values that `PoseResult.answer` builds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from sdpose_client.errors import ErrorCode, ServiceError, error_named

if sys.version_info >= (3, 12):
    from typing import TypedDict
else:  # pydantic reads that of `typing` from Python 3.12 on; anyio, below httpx, installs this
    from typing_extensions import TypedDict

T = TypeVar("T")
_SCORE = {"ge": 0, "le": 1}


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels of the image as displayed; x and y are its top left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Keypoint:
    """One named place on the body, in pixels of the image as displayed."""

    name: str = field(metadata={"examples": ["left_wrist"]})
    x: float
    y: float
    score: float = field(metadata=_SCORE)
    visibility: float | None = field(
        default=None,
        metadata={
            "description": "Probability that it is present: that an annotator would label it, as "
            "visible or as hidden but placeable; absent if the student has no score head.",
            **_SCORE,
        },
    )


@dataclass(frozen=True, slots=True)
class Person:
    """One person, with the keypoints of the student (fewer if `min_keypoint_score` is set)."""

    box: Box
    score: float = field(metadata=_SCORE)
    keypoints: tuple[Keypoint, ...]
    id: int | None = field(
        default=None, metadata={"description": "Who it is over time; streams only."}
    )


@dataclass(frozen=True, slots=True)
class Size:
    """The image in pixels, after its EXIF orientation."""

    width: int
    height: int


class Models(TypedDict):
    """Names of the models that answered."""

    student: str
    detector: str
    backend: str
    device: str


@dataclass(frozen=True, slots=True)
class PoseAnswer:
    """The people of one image."""

    people: tuple[Person, ...]
    image: Size
    timings_ms: dict[str, float] = field(
        metadata={"description": "Milliseconds of work per stage, in `queue`, and in `total`."}
    )
    models: Models
    request_id: str

    __pydantic_config__: ClassVar = {
        "json_schema_extra": {
            "examples": [
                {
                    "people": [
                        {
                            "box": {"x": 48.2, "y": 399.6, "width": 197.9, "height": 503.1},
                            "score": 0.91,
                            "keypoints": [
                                {
                                    "name": "nose",
                                    "x": 142.3,
                                    "y": 442.7,
                                    "score": 0.94,
                                    "visibility": 0.97,
                                }
                            ],
                        }
                    ],
                    "image": {"width": 810, "height": 1080},
                    "timings_ms": {"decode": 6.1, "detect": 31.0, "pose": 18.2, "total": 57.3},
                    "models": {
                        "student": "sdpose-lite",
                        "detector": "embedded",
                        "backend": "openvino",
                        "device": "cpu",
                    },
                    "request_id": "0f6c2f0f5d7e4c0f9b0a7a1d5c3e2b11",
                }
            ]
        }
    }

    @property
    def width(self) -> int:
        """Width of the image, in pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """Height of the image, in pixels."""
        return self.image.height


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """The outcome of one frame: its people, or its own error.

    `dropped` counts the frames skipped since the answer before. `resume_token` comes with the first
    answer of a stream that tracks.
    """

    sequence: int
    timestamp: float | None
    dropped: int
    outcome: PoseAnswer | ServiceError
    resume_token: str | None = None


def read_json(text: str | bytes, read: Callable[[Any], T]) -> T:
    """`read`, which is one of the functions below, of a JSON text.

    Raises `ServiceError` (internal) for what is no answer of this version of the service. A newer
    one may have more in its answers, which is left out.
    """
    try:
        return read(json.loads(text))
    except KeyError as missing:
        message = f"an answer without {missing}: the service is of another version, or another one"
    except (TypeError, AttributeError):
        message = "an answer of another form: the service is of another version, or another one"
    except (ValueError, RecursionError):
        message = "an answer that is no JSON: it was cut on its way, or is not the service's"
    raise ServiceError(ErrorCode.INTERNAL, message)


def answer_of(value: Mapping[str, Any]) -> PoseAnswer:
    """One image's answer out of its JSON. Raises `KeyError` and `TypeError` for anything else."""
    people = tuple(
        Person(
            _box_of(person["box"]),
            person["score"],
            tuple(
                Keypoint(
                    point["name"], point["x"], point["y"], point["score"], point.get("visibility")
                )
                for point in person["keypoints"]
            ),
            person.get("id"),
        )
        for person in value["people"]
    )
    image = value["image"]
    return PoseAnswer(
        people,
        Size(image["width"], image["height"]),
        value["timings_ms"],
        value["models"],
        value["request_id"],
    )


def _box_of(value: Mapping[str, Any]) -> Box:
    return Box(value["x"], value["y"], value["width"], value["height"])


def outcome_of(value: Mapping[str, Any]) -> PoseAnswer | ServiceError:
    """The answer or the error of one image among several, or of a frame. Raises as `answer_of`."""
    if "error" not in value:
        return answer_of(value)
    error = value["error"]
    return error_named(
        error["code"],
        error["detail"],
        field=error.get("field"),
        retry_after_s=error.get("retry_after_s"),
    )


def answers_of(value: Mapping[str, Any]) -> list[PoseAnswer | ServiceError]:
    """One answer or error per image. Raises as `answer_of`."""
    return [outcome_of(entry) for entry in value.get("results", [value])]


def stream_answer_of(value: Mapping[str, Any]) -> StreamAnswer:
    """The answer of one frame of `WS /pose/stream`, or a `pose` event of a camera."""
    return StreamAnswer(
        value["sequence"],
        value.get("timestamp"),
        value["dropped"],
        outcome_of(value),
        value.get("resume_token"),
    )
