"""OpenAPI description of the image routes, whose bodies FastAPI does not read itself."""

from __future__ import annotations

from typing import Any

from sdpose_client.answers import PoseAnswer
from service.parameters import PoseParameters
from service.rest.body import IMAGE_FIELD
from service.rest.schemas import PoseAnswers, Problem

_WHEN = {
    400: "The bytes do not decode as an image.",
    401: "The key is missing or wrong.",
    403: "The key does not open this, or not at this priority.",
    413: "More bytes, pixels, images or boxes than allowed.",
    415: "Not an image of an accepted type.",
    422: "A bad parameter; `field` names it.",
    429: "The queue is full; Retry-After gives the time to wait.",
    500: "A fault of the service; the log has it under the request id.",
    503: "Starting, draining or without its worker; Retry-After gives the time to wait.",
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
    "description": "People the caller knows already, as JSON; skips the detector. One image: a "
    "list of `[x1, y1, x2, y2]` or `{x, y, width, height}` in pixels, as "
    "`[[48.2, 399.6, 246.1, 902.7]]`. Several: a list with one such list, or null, an image.",
}

_SMALL_IMAGE = "UklGRh4AAABXRUJQVlA4TBEAAAAvB8ABAAdQ5CIXuf+BiOh/AAA="
"""8 x 8 pixels of grey as WebP: an example that is answered as it stands."""


def _query_parameters() -> list[dict[str, Any]]:
    """Each option once: forms and JSON objects take them too, as the body's description states."""
    schema = PoseParameters.model_json_schema()
    described = {**schema["properties"], "boxes": _BOXES}
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": each["description"],
            "schema": _of_query(each, schema["$defs"]),
        }
        for name, each in described.items()
    ]


def _of_query(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Without null, which a query cannot say, and without references into the model."""
    choices = [
        definitions[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
        for each in schema.get("anyOf", [schema])
        if each != {"type": "null"}
    ]
    values = [
        {key: value for key, value in each.items() if key not in ("title", "description")}
        for each in choices
    ]
    return values[0] if len(values) == 1 else {"anyOf": values}


def _document(answer: dict[str, Any], *, many: bool) -> dict[str, Any]:
    # `format: binary` and not `contentMediaType`: by it documentation pages offer a file to choose.
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    encoded: dict[str, Any] = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "An image file in base64, or as a `data:` URL.",
    }
    files = {"type": "array", "items": file, "minItems": 1} if many else file
    texts = {"type": "array", "items": encoded, "minItems": 1}
    return {
        "responses": {200: answer, **PROBLEMS},
        "openapi_extra": {
            "parameters": _query_parameters(),
            "requestBody": {
                "required": True,
                "description": "The image. A form takes the parameters as fields too, a JSON "
                "object as members.",
                "content": {
                    "multipart/form-data": {"schema": _image_alone(files)},
                    "image/*": {"schema": file},
                    "application/json": {
                        "schema": _image_alone({"oneOf": [encoded, texts]} if many else encoded),
                        "example": {IMAGE_FIELD: _SMALL_IMAGE},
                    },
                },
            },
        },
    }


def _image_alone(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [IMAGE_FIELD],
        "properties": {IMAGE_FIELD: schema},
        "additionalProperties": False,
    }


POSE_DOCUMENT = _document(
    {
        "model": PoseAnswer | PoseAnswers,
        "description": "The people of the image; with several images `results` in their order, "
        "each either such an answer or an `error`.",
    },
    many=True,
)
OVERLAY_DOCUMENT = _document(
    {"content": {"image/jpeg": {}}, "description": "The annotated image as JPEG."}, many=False
)
