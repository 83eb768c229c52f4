"""What tests of REST look for in answers and metrics."""

from __future__ import annotations

import asyncio

import httpx
from pydantic import TypeAdapter

from sdpose_client.answers import PoseAnswer
from service.rest.errors import PROBLEM_TYPE
from service.rest.schemas import PoseAnswers
from tests.service.conftest import Service

DOCUMENTED: TypeAdapter[PoseAnswer] = TypeAdapter(PoseAnswer)
"""The answer to one image, as OpenAPI describes it."""
DOCUMENTED_SEVERAL: TypeAdapter[PoseAnswers] = TypeAdapter(PoseAnswers)
"""The answers to several."""


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_TYPE
    body = response.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["request_id"] == response.headers["x-request-id"]
    assert {"type", "title", "detail"} <= set(body)


async def outcome_of_the_only_request(service: Service) -> str:
    while service.runtime.in_flight:
        await asyncio.sleep(0.005)
    text = service.runtime.metrics.exposition().decode()
    (line,) = [line for line in text.splitlines() if line.startswith("sdpose_requests_total{")]
    return line
