"""The parameters of a request, checked the same way for every front end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import PydanticCustomError

from sdpose_core.types import Floats, check_boxes
from service.errors import ErrorCode, ServiceError, invalid_argument, shortened
from service.json_text import most_values, read_json

MAX_CYCLES = 8
"""More than any student was trained with; a server usually allows fewer."""


class Priority(StrEnum):
    """The order in a queue."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def order(self) -> int:
        """Lower goes first."""
        return (Priority.HIGH, Priority.NORMAL, Priority.LOW).index(self)


class PoseParameters(BaseModel):
    """The parameters of one request; the names are those of REST and of the gRPC options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_people: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Maximum number of people in the answer, best scores first.",
    )
    min_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Leave out people who score lower. Unset: people whom neither the detector is "
        "sure of nor their joints confirm.",
    )
    min_keypoint_score: float = Field(
        default=0.0, ge=0, le=1, description="Leave out keypoints whose score is lower."
    )
    cycles: int | None = Field(
        default=None,
        ge=0,
        le=MAX_CYCLES,
        description="Transformer cycles, as many as the student has and the server allows; the "
        "embedded one has 0, the paper's have 1 to 3. More is slower. Unset: as the server is set.",
    )
    flip_test: bool = Field(
        default=False, description="Also estimate the mirrored person and merge; twice the work."
    )
    suppress: bool | None = Field(
        default=None,
        description="Leave out copies: people with the joints of a better scored one. People of "
        "`boxes` always stay. Unset: as the server is set, by default yes.",
    )
    deadline_ms: float | None = Field(
        default=None,
        gt=0,
        description="Maximum milliseconds until the answer; after that the request fails.",
    )
    priority: Priority | None = Field(
        default=None,
        description="The order in a queue. Unset: `normal`, or what the caller may have at most.",
    )

    @field_validator("cycles", mode="wrap")
    @classmethod
    def _check_cycles(cls, value: object, check: ValidatorFunctionWrapHandler) -> int | None:
        # The message names the range for values that are no number, too.
        try:
            return check(value)  # type: ignore[no-any-return]
        except ValidationError:
            raise PydanticCustomError("cycles", f"must be 0 to {MAX_CYCLES}") from None


def each_once(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Raw values by name. Raises `ServiceError` invalid_argument if a name comes twice."""
    single: dict[str, str] = {}
    for name, value in items:
        if name in single:
            raise invalid_argument(name, "given twice")
        single[name] = value
    return single


def parse_parameters(given: Mapping[str, object]) -> PoseParameters:
    """Checks raw values, strings or not. Raises `ServiceError` invalid_argument with the field."""
    try:
        parameters = PoseParameters.model_validate(given)
    except ValidationError as error:
        known = ["boxes", *PoseParameters.model_fields]
        raise rejected(error, "parameter", known) from None
    for name, value in given.items():  # only Python writes numbers so
        if isinstance(value, str) and "_" in value:
            raise invalid_argument(name, f"must be a number, not {value[:40]!r}")
    if parameters.deadline_ms is not None and not math.isfinite(parameters.deadline_ms):
        raise invalid_argument("deadline_ms", "must be finite")
    return parameters


def rejected(error: ValidationError, what: str, known: Iterable[str]) -> ServiceError:
    """The first complaint of pydantic as invalid_argument; `what` is one of the `known` names."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else f"{what}s"
    if first["type"] == "extra_forbidden":
        return invalid_argument(name, f"unknown {what}; known are {', '.join(known)}")
    return invalid_argument(name, first["msg"])


def parse_boxes(text: str, images: int, max_boxes: int) -> list[Floats | None]:
    """The boxes of each image from JSON; None to detect people.

    One image: a list of boxes. Several: a list with one such list, or null, per image. A box is
    `[x1, y1, x2, y2]` or `{"x", "y", "width", "height"}`, in pixels. Raises `ServiceError`.
    """
    value = read_json(text, most_values(max_boxes, images), "boxes")
    if not isinstance(value, list):
        raise invalid_argument("boxes", "expected a JSON list")
    nested = bool(value) and all(item is None or _is_list_of_boxes(item) for item in value)
    if images == 1 and not nested:
        return [check_caller_boxes(value, max_boxes)]
    if len(value) != images or not nested:
        raise invalid_argument("boxes", f"expected one list of boxes, or null, for {images} images")
    return [None if item is None else check_caller_boxes(item, max_boxes) for item in value]


def _is_list_of_boxes(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, list | dict) for item in value)


def check_caller_boxes(boxes: Sequence[object], max_boxes: int) -> Floats:
    """`(N, 4)` xyxy pixels. Raises `ServiceError` payload_too_large or invalid_argument."""
    check_count(len(boxes), max_boxes)
    corners = [_corners(index, box) for index, box in enumerate(boxes)]
    try:
        return check_boxes(np.array(corners, np.float64).astype(np.float32))
    except (ValueError, OverflowError) as error:
        raise invalid_argument("boxes", str(error).removeprefix("boxes: ")) from None


def check_count(boxes: int, max_boxes: int) -> None:
    """Raises `ServiceError` payload_too_large for more boxes than allowed."""
    if boxes > max_boxes:
        raise ServiceError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"{boxes} boxes are more than the {max_boxes} allowed",
            field="boxes",
        )


def _corners(index: int, box: object) -> tuple[float, float, float, float]:
    if isinstance(box, Mapping):
        if set(box) != {"x", "y", "width", "height"}:
            raise invalid_argument("boxes", f"box {index} needs x, y, width and height")
        x, y, width, height = (_number(index, box[key]) for key in ("x", "y", "width", "height"))
        return x, y, x + width, y + height
    if isinstance(box, Sequence) and not isinstance(box, str) and len(box) == 4:
        x1, y1, x2, y2 = (_number(index, value) for value in box)
        return x1, y1, x2, y2
    raise invalid_argument(
        "boxes", f"box {index} must be [x1, y1, x2, y2] or an object with x, y, width, height"
    )


def _number(index: int, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid_argument("boxes", f"box {index} holds {shortened(value)}, which is no number")
    # A wider bound than any image has; it keeps later arithmetic in float32 finite.
    if not abs(value) <= 1e6:
        raise invalid_argument(
            "boxes", f"box {index} holds {shortened(value)}, expected a finite pixel"
        )
    return float(value)


def check_boxes_touch(boxes: Floats, width: int, height: int) -> None:
    """Raises invalid_argument if a box lies wholly outside the image."""
    outside = (
        (boxes[:, 2] <= 0) | (boxes[:, 3] <= 0) | (boxes[:, 0] >= width) | (boxes[:, 1] >= height)
    )
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise invalid_argument(
            "boxes", f"box {first} lies outside the image of {width} x {height} pixels"
        )
