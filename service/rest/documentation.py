"""What OpenAPI says of the image routes, whose bodies FastAPI does not read itself."""

from __future__ import annotations

from typing import Any

from service.parameters import PoseParameters
from service.rest.body import IMAGE_FIELD
from service.rest.schemas import PoseResponse, PoseResponses, Problem

_WHEN = {
    400: "The bytes do not decode as an image.",
    401: "The key is missing or wrong.",
    403: "The key does not open this, or not at this priority.",
    413: "More bytes, pixels, images or boxes than allowed.",
    415: "Not an image of an accepted type.",
    422: "A bad parameter; `field` names it.",
    429: "The queue is full; Retry-After says when to come back.",
    500: "A fault of the service; the log has it under the request id.",
    503: "Starting, draining or without its worker; Retry-After says when to come back.",
    504: "The deadline passed.",
}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for status, text in _WHEN.items()
}

CAMERA_PROBLEMS = {
    **PROBLEMS,
    404: {**PROBLEMS[422], "description": "There is no such camera."},
    409: {**PROBLEMS[422], "description": "There is a camera of that name already."},
}

ADMIN_PROBLEMS = {
    **PROBLEMS,
    409: {**PROBLEMS[422], "description": "Models are being loaded already."},
}

_BOXES = {
    "type": "string",
    "contentMediaType": "application/json",
    "description": "People the caller knows already, as JSON; skips the detector. One image: a "
    "list of `[x1, y1, x2, y2]` or `{x, y, width, height}` in pixels. Several images: a list "
    "with one such list, or null, an image.",
    "examples": ["[[48.2, 399.6, 246.1, 902.7]]"],
}


def _parameter_schemas() -> dict[str, dict[str, Any]]:
    schema = PoseParameters.model_json_schema()
    priority = {**schema["$defs"]["Priority"], **schema["properties"]["priority"]}
    priority.pop("$ref", None)
    return {**schema["properties"], "priority": priority, "boxes": _BOXES}


def _document(answer: dict[str, Any], *, many: bool) -> dict[str, Any]:
    parameters = _parameter_schemas()
    file_schema: dict[str, Any] = {"type": "string", "contentMediaType": "application/octet-stream"}
    images: dict[str, Any] = (
        {"type": "array", "items": file_schema, "minItems": 1} if many else file_schema
    )
    form = {
        "type": "object",
        "required": [IMAGE_FIELD],
        "properties": {IMAGE_FIELD: images, **parameters},
        "additionalProperties": False,
    }
    encoded: dict[str, Any] = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "An image file in base64, or as a `data:` URL.",
    }
    boxes = {"type": "array", "description": _BOXES["description"]}
    json_object = {
        **form,
        "properties": {
            **parameters,
            "boxes": boxes,
            IMAGE_FIELD: {"oneOf": [encoded, {"type": "array", "items": encoded, "minItems": 1}]}
            if many
            else encoded,
        },
    }
    return {
        "responses": {200: answer, **PROBLEMS},
        "openapi_extra": {
            "parameters": [
                {
                    "name": name,
                    "in": "query",
                    "required": False,
                    "schema": schema,
                    "description": schema.get("description", ""),
                }
                for name, schema in parameters.items()
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {"schema": form},
                    "application/json": {"schema": json_object},
                    "image/*": {"schema": {"type": "string", "format": "binary"}},
                },
            },
        },
    }


POSE_DOCUMENT = _document(
    {
        "model": PoseResponse | PoseResponses,
        "description": "The people of the image; with several images `results` in their order, "
        "each either such an answer or an `error`.",
    },
    many=True,
)
OVERLAY_DOCUMENT = _document(
    {"content": {"image/jpeg": {}}, "description": "The annotated image as JPEG."}, many=False
)
