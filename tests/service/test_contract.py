"""The OpenAPI document: true to itself, and no request that follows it is a fault of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.parameters import PoseParameters
from service.rest.app import create_app
from service.runtime.runtime import Runtime
from service.settings import load_settings
from tests.service.processes import process


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with process() as (_, client):
        yield str(client.base_url).rstrip("/")


def no_fault_of_ours(context: object, response: schemathesis.Response, case: object) -> None:
    """503 and 504 are honest answers to a deadline of no time; 500 never is."""
    assert response.status_code != 500, response.text


_OF_A_CAMERA = {"/cameras/{name}", "/cameras/{name}/events", "/cameras/{name}/live"}
CHECKS = [
    no_fault_of_ours,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def try_operation(operation: Any, mode: GenerationMode, tried: list[str], count: int) -> None:
    """So many requests of one operation, always the same; notes its path."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def answers_as_documented(case: schemathesis.Case) -> None:
        tried.append(case.operation.path)
        case.call_and_validate(checks=CHECKS)

    answers_as_documented()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_is_a_fault_of_ours(url: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried: list[str] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # without parameters there is nothing to break

        try_operation(operation, mode, tried, 30)
    with_body = {"/pose", "/pose/overlay", "/cameras", "/admin/reload"}
    others = {"/models", "/livez", "/readyz", "/metrics", *_OF_A_CAMERA}
    assert set(tried) == (with_body | others if mode is GenerationMode.POSITIVE else with_body)


def test_document_describes_every_parameter_and_answer() -> None:
    document = create_app(Runtime(load_settings())).openapi()
    assert set(document["paths"]) == {
        "/pose",
        "/pose/overlay",
        "/cameras",
        "/admin/reload",
        *_OF_A_CAMERA,
        "/models",
        "/livez",
        "/readyz",
        "/metrics",
    }
    pose = document["paths"]["/pose"]["post"]
    assert {each["name"] for each in pose["parameters"]} == {*PoseParameters.model_fields, "boxes"}
    assert all(each["description"] for each in pose["parameters"])
    for path in ("/pose", "/pose/overlay"):
        post = document["paths"][path]["post"]
        content = post["requestBody"]["content"]
        assert list(content) == ["multipart/form-data", "image/*", "application/json"]
        # Each option once, in the query; nothing there that no query can say.
        assert set(content["multipart/form-data"]["schema"]["properties"]) == {"image"}
        assert set(content["application/json"]["schema"]["properties"]) == {"image"}
        schemas = {each["name"]: each["schema"] for each in post["parameters"]}
        assert schemas["max_people"] == {"type": "integer", "minimum": 1, "maximum": 1000}
        assert schemas["boxes"] == {"type": "string"}
        assert schemas["priority"]["enum"] == ["high", "normal", "low"]
        defaults = {name: each["default"] for name, each in schemas.items() if "default" in each}
        given = PoseParameters().model_dump()
        assert defaults == {name: given[name] for name in ("min_keypoint_score", "flip_test")}
    assert set(document["paths"]["/pose/overlay"]["post"]["responses"]["200"]["content"]) == {
        "image/jpeg"
    }
    assert set(pose["responses"]) == {
        "200", "400", "401", "403", "413", "415", "422", "429", "500", "503", "504",
    }  # fmt: skip
    for status, response in pose["responses"].items():
        kind = "application/json" if status == "200" else "application/problem+json"
        assert set(response["content"]) == {kind}
    assert "examples" in json.dumps(document["components"]["schemas"]["PoseAnswer"])


def test_docs_page(url: str) -> None:
    assert httpx.get(f"{url}/docs").status_code == 200
