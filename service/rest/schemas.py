"""OpenAPI schemas of REST answers beyond `sdpose_client.answers`, and of errors."""

from __future__ import annotations

from pydantic import BaseModel, Field

from sdpose_client.answers import Models, PoseAnswer, Size
from service.cameras.camera import CameraState


class ErrorModel(BaseModel):
    """Why one image among several has no answer."""

    code: str
    detail: str
    field: str | None = None
    retry_after_s: float | None = Field(
        None, description="Seconds after which another try with this image makes sense."
    )


class ErrorEntry(BaseModel):
    """The entry of an image that failed."""

    error: ErrorModel


class PoseAnswers(BaseModel):
    """One entry per image, in the order of the request."""

    results: list[PoseAnswer | ErrorEntry]


class Problem(BaseModel):
    """An error as RFC 9457 has it, with the service's own code and the request id."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(examples=["invalid_image"])
    request_id: str
    field: str | None = None


class CyclesModel(BaseModel):
    """How often the student's transformer may run; 0 is its backbone alone."""

    lowest: int
    highest: int
    served: int = Field(description="If a request sets none.")


class ModelsResponse(BaseModel):
    """The loaded models, and how to read their answers."""

    models: Models
    keypoints: list[str]
    skeleton: list[list[int]] = Field(description="Limbs as pairs of indices into keypoints.")
    input_size: Size = Field(description="Crop of one person that the student sees.")
    cycles: CyclesModel


class Health(BaseModel):
    """A healthy answer."""

    status: str


class CameraModel(BaseModel):
    """A camera that the service reads; its counts are since it was added."""

    name: str
    address: str = Field(description="Without user and password.")
    state: CameraState = Field(
        description="`connecting`: no frame came yet. `broken`: no frames come, it is tried again. "
        "`ended`: it came to its end, or was removed."
    )
    problem: str | None = Field(None, description="Why no frames come.")
    image: Size | None = Field(None, description="Of its frames, unless none came yet.")
    frames: int = Field(description="That were processed.")
    errors: int = Field(description="Of the frames, those without a result.")
    dropped: int = Field(description="Frames left out because newer ones had come.")
    reconnects: int = Field(description="How often its broken line came back.")
    people: int = Field(description="In the last result.")
    watchers: int = Field(description="Clients that watch it.")


class CamerasResponse(BaseModel):
    """All cameras that the service reads."""

    cameras: list[CameraModel]
