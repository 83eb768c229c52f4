"""Routes of the operator under `/admin`, for keys with the scope `admin`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdpose_client.answers import Models
from sdpose_core.detector.factory import is_factory
from service.access.keys import Scope
from service.errors import invalid_argument
from service.parameters import rejected
from service.rest.callers import KEYS, callers_of
from service.rest.documentation import ADMIN_PROBLEMS
from service.rest.json_body import read_small_json
from service.runtime.runtime import Runtime


class ReloadRequest(BaseModel):
    """Models to load in place of the loaded ones; a field left out reloads the same one."""

    model_config = ConfigDict(extra="forbid")

    student: str | None = Field(
        default=None, description="As SDPOSE_STUDENT: a preset name or a path."
    )
    detector: str | None = Field(default=None, description="As SDPOSE_DETECTOR, but no factory.")


_REQUEST: Final = {
    "requestBody": {
        "required": False,
        # /docs sends the example: it names no model, so those that run are loaded again.
        "content": {
            "application/json": {"schema": ReloadRequest.model_json_schema(), "example": {}}
        },
    }
}


def admin_routes(runtime: Runtime) -> APIRouter:
    """Loading other models without a restart."""
    router = APIRouter(
        prefix="/admin",
        dependencies=[*KEYS, Depends(callers_of(runtime.access, Scope.ADMIN))],
        tags=["administration"],
        responses=ADMIN_PROBLEMS,
    )

    @router.post(
        "/reload",
        summary="Reload the models, or load others, and swap",
        response_model=Models,
        openapi_extra=_REQUEST,
    )
    async def reload(request: Request) -> dict[str, str]:
        """Answers when the new models serve. Requests in flight finish on the previous ones; if
        the new ones do not load, the previous ones stay.
        """
        changes = (
            _parsed(await read_small_json(request, "the models")) if _has_body(request) else {}
        )
        return asdict(await runtime.reload(**changes))

    return router


def _has_body(request: Request) -> bool:
    return (
        request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    )


def _parsed(given: object) -> dict[str, str]:
    """Raises `ServiceError` invalid_argument."""
    if not isinstance(given, dict):
        raise invalid_argument("body", "expected a JSON object")
    try:
        requested = ReloadRequest.model_validate(given).model_dump(exclude_none=True)
    except ValidationError as error:
        raise rejected(error, "field", ReloadRequest.model_fields) from None
    if is_factory(requested.get("detector", "")):  # a key may load models, not run code
        raise invalid_argument("detector", "a factory is taken only from SDPOSE_DETECTOR")
    return requested
