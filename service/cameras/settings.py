"""Settings of one camera: name, address, and how its frames are processed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import ServiceError, invalid_argument
from service.parameters import PoseParameters, rejected
from service.streams.settings import Drop, StreamSettings, parse_stream_settings
from service.toml_files import read_toml

_ONLY_FOR_STREAMS = ("drop", "resume_token")


class CameraFileError(ValueError):
    """A camera file is wrong; the message is one sentence."""


class CameraRequest(BaseModel):
    """A camera as callers and camera files describe it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Letters, digits, _ and -; it is part of the camera's paths.",
        examples=["door"],
    )
    address: str = Field(
        min_length=1,
        max_length=1024,
        description="`rtsp://`, `rtsps://`, `http://`, `https://` or `/dev/video0`.",
        examples=["rtsp://10.0.0.5/stream1"],
    )
    fps: float | None = Field(
        default=None, gt=0, le=1000, description="Maximum frames per second; unset: all there is."
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="As of a stream: `options`, `tracking`, `smoothing`, `detect_every`.",
    )


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """A checked camera; whether its address is allowed is checked when it is added."""

    name: str
    address: str
    fps: float | None
    stream: StreamSettings
    parameters: PoseParameters


def parse_camera(given: object) -> CameraSettings:
    """Checks all but whether the address is allowed. Raises `ServiceError` invalid_argument."""
    if not isinstance(given, Mapping):
        raise invalid_argument("camera", "expected an object")
    try:
        request = CameraRequest.model_validate(dict(given))
    except ValidationError as error:
        if error.errors()[0]["type"] == "string_pattern_mismatch":
            raise invalid_argument("name", "1 to 64 letters, digits, _ and -") from None
        raise rejected(error, "field of a camera", CameraRequest.model_fields) from None
    for name in _ONLY_FOR_STREAMS:
        if name in request.config:
            raise invalid_argument(name, "not for a camera, whose latest frame always wins")
    stream, parameters = parse_stream_settings(request.config)
    return CameraSettings(
        request.name,
        _device_path(request.address),
        request.fps,
        stream.model_copy(update={"drop": Drop.LATEST}),
        parameters,
    )


def read_camera_file(path: Path | None, limit: int) -> list[CameraSettings]:
    """The cameras of a TOML file: tables `[[camera]]` with the fields of `CameraRequest`.

    Raises `CameraFileError`, also for more than `limit`.
    """
    if path is None:
        return []
    content = read_toml(path, CameraFileError)
    tables = content.pop("camera", [])
    if content or not isinstance(tables, list):
        raise CameraFileError(f"{path}: expected tables [[camera]] and nothing else")
    cameras: list[CameraSettings] = []
    for number, table in enumerate(tables, 1):
        try:
            cameras.append(parse_camera(table))
        except ServiceError as error:
            raise CameraFileError(f"{path}: camera {number}: {error.message}") from None
    names = [camera.name for camera in cameras]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CameraFileError(f"{path}: two cameras are named {twice[0]}")
    if len(cameras) > limit:
        raise CameraFileError(
            f"{path}: {len(cameras)} cameras, more than SDPOSE_MAX_CAMERAS, {limit}"
        )
    return cameras


def _device_path(address: str) -> str:
    return f"/dev/video{address}" if address.isdecimal() else address
