"""The answers of REST as OpenAPI documents them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.cameras.camera import CameraState


class BoxModel(BaseModel):
    """A box in pixels of the image as displayed; x and y are its top left corner."""

    x: float
    y: float
    width: float
    height: float


class KeypointModel(BaseModel):
    """One named place on the body, in pixels of the image as displayed."""

    name: str = Field(examples=["left_wrist"])
    x: float
    y: float
    score: float = Field(ge=0, le=1)


class PersonModel(BaseModel):
    """One person, with the 17 COCO keypoints (fewer where `min_keypoint_score` is set)."""

    box: BoxModel
    score: float = Field(ge=0, le=1)
    id: int | None = Field(None, description="Who it is over time; streams only.")
    keypoints: list[KeypointModel]


class SizeModel(BaseModel):
    """The image in pixels, after its EXIF orientation."""

    width: int
    height: int


class ModelsModel(BaseModel):
    """What answered."""

    student: str
    detector: str
    backend: str
    device: str


class PoseResponse(BaseModel):
    """The people of one image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "people": [
                        {
                            "box": {"x": 48.2, "y": 399.6, "width": 197.9, "height": 503.1},
                            "score": 0.91,
                            "keypoints": [{"name": "nose", "x": 142.3, "y": 442.7, "score": 0.94}],
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
    )

    people: list[PersonModel]
    image: SizeModel
    timings_ms: dict[str, float] = Field(
        description="Milliseconds of work per stage, in `queue`, and in `total`."
    )
    models: ModelsModel
    request_id: str


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


class PoseResponses(BaseModel):
    """One entry an image, in the order of the request."""

    results: list[PoseResponse | ErrorEntry]


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
    served: int = Field(description="Where a request sets none.")


class ModelsResponse(BaseModel):
    """What the service has loaded and how its answers are to be read."""

    models: ModelsModel
    keypoints: list[str]
    skeleton: list[list[int]] = Field(description="Limbs as pairs of indices into keypoints.")
    input_size: SizeModel = Field(description="Crop of one person that the student sees.")
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
    image: SizeModel | None = Field(None, description="Of its frames, unless none came yet.")
    frames: int = Field(description="That were processed.")
    errors: int = Field(description="Of the frames, those without a result.")
    dropped: int = Field(description="Frames left out because newer ones had come.")
    reconnects: int = Field(description="How often its broken line came back.")
    people: int = Field(description="In the last result.")
    watchers: int = Field(description="Clients that watch it.")


class CamerasResponse(BaseModel):
    """All cameras that the service reads."""

    cameras: list[CameraModel]
