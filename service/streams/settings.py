"""Settings of one stream, by the same names in every protocol."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import invalid_argument
from service.parameters import PoseParameters, parse_parameters, rejected

# A stream has no deadline; each of its frames has the server's.
_OPTIONS = [name for name in PoseParameters.model_fields if name != "deadline_ms"]


class Drop(StrEnum):
    """Policy for frames that come faster than they can be processed."""

    LATEST = "latest"
    NONE = "none"


class StreamSettings(BaseModel):
    """Settings across the frames of a stream; `PoseParameters` are those of each frame."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tracking: bool = Field(default=True, description="Give people ids that stay over time.")
    smoothing: bool = Field(
        default=True, description="Steady the joints; only people that are tracked."
    )
    detect_every: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] = Field(
        default="auto",
        description="Detect people in every so many frames; in between, boxes follow the joints. "
        "`auto`: in every frame while there is time for it.",
    )
    drop: Drop = Field(
        default=Drop.LATEST,
        description="`latest`: a newer frame replaces one that waits. `none`: every frame is "
        "answered, and the sender is slowed down.",
    )
    resume_token: str | None = Field(
        default=None,
        max_length=64,
        description="Of an earlier stream, whose people keep their ids if it ended not long ago.",
    )


def parse_stream_settings(given: Mapping[str, Any]) -> tuple[StreamSettings, PoseParameters]:
    """Both parts of a stream's configuration: `options`, and the settings beside them.

    Raises `ServiceError` invalid_argument with the field.
    """
    options = given.get("options", {})
    if not isinstance(options, Mapping):
        raise invalid_argument("options", "expected an object")
    for name in options:
        if name not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise invalid_argument(name, f"unknown parameter of a stream; known are {known}")
    try:
        settings = StreamSettings.model_validate(
            {name: value for name, value in given.items() if name != "options"}
        )
    except ValidationError as error:
        names = ["options", *StreamSettings.model_fields]
        rejection = rejected(error, "setting of a stream", names)
        if rejection.field == "detect_every":  # a union complains about each member in turn
            rejection = invalid_argument("detect_every", "must be 1 to 1000, or auto")
        raise rejection from None
    return settings, parse_parameters(options)
