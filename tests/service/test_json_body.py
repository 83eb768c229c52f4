"""Images in base64 inside a JSON object."""

from __future__ import annotations

import base64
import json

import pytest

from service.rest.json_body import parse_json
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import Service, serving
from tests.service.rest_checks import DOCUMENTED, DOCUMENTED_SEVERAL, assert_problem

pytestmark = pytest.mark.anyio

TEXT = base64.b64encode(PNG).decode()


async def test_the_answer_is_that_of_a_form(service: Service, fake: FakeEstimator) -> None:
    fake.people = 3
    form = await service.http.post("/pose", files={"image": PNG}, data={"max_people": "2"})
    for image in (TEXT, f"data:image/png;base64,{TEXT}", "\n".join((TEXT[:40], TEXT[40:]))):
        response = await service.http.post("/pose", json={"image": image, "max_people": 2})
        assert response.status_code == 200, response.text
        DOCUMENTED.validate_json(response.content, strict=True, extra="forbid")
        assert response.json()["people"] == form.json()["people"]
    in_query = await service.http.post("/pose?max_people=2", json={"image": TEXT})
    assert in_query.json()["people"] == form.json()["people"]
    drawn = await service.http.post("/pose/overlay", json={"image": TEXT})
    assert drawn.headers["content-type"] == "image/jpeg"


async def test_several_images_and_boxes(service: Service, fake: FakeEstimator) -> None:
    boxes = [[[0, 0, 4, 4]], None]
    response = await service.http.post("/pose", json={"image": [TEXT, TEXT], "boxes": boxes})
    as_text = await service.http.post(
        "/pose", json={"image": [TEXT, TEXT], "boxes": json.dumps(boxes)}
    )
    answers = DOCUMENTED_SEVERAL.validate_json(response.content, strict=True, extra="forbid")
    assert len(answers.results) == 2
    people = [each["people"] for each in response.json()["results"]]
    assert people == [each["people"] for each in as_text.json()["results"]]
    assert people[0][0]["box"]["width"] == 4


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        (b"{", 422, "not readable JSON"),
        (b"\xff\xfe", 422, "not readable JSON"),
        (b"[" * 500, 422, "not readable JSON"),
        (b"[" * 5000, 413, "values allowed in its JSON"),
        (b'{"image": "' + b"\\n" * 5000 + b'"}', 413, "escaped or beyond ASCII"),
        (
            json.dumps({"image": "", **dict.fromkeys(map(str, range(33)), 1)}).encode(),
            422,
            "more than 32",
        ),
        (b'["image"]', 422, "expected a JSON object, got list"),
        (b"{}", 422, "no image in the JSON object"),
        (b'{"image": null}', 422, "no image in the JSON object"),
        (b'{"image": []}', 422, "no image in the JSON object"),
        (b'{"image": 5}', 422, "expected base64 text, got int"),
        (b'{"image": "data:image/png,abc"}', 422, "not base64"),
        (b'{"image": "hall\xc3\xb6chen"}', 422, "not base64"),
        (b'{"image": "abc"}', 422, "not base64"),
        (b'{"image": ["", "", ""]}', 413, "more than the 2 images allowed"),
        (b'{"image": ""}', 400, ""),
        (json.dumps({"image": TEXT, "colour": "red"}).encode(), 422, "colour"),
        (json.dumps({"image": TEXT, "max_people": {"a": 1}}).encode(), 422, "max_people"),
        (json.dumps({"image": TEXT, "min_score": float("nan")}).encode(), 422, "min_score"),
        (json.dumps({"image": TEXT, "boxes": [[1, 2]]}).encode(), 422, "boxes"),
        (json.dumps({"image": "A" * 2**21}).encode(), 413, "larger than"),
        (json.dumps({"image": "A" * (2**20 + 2**19)}).encode(), 413, "more than the 1048576"),
    ],
)
async def test_bad_objects_are_refused_in_one_sentence(
    content: bytes, status: int, detail: str
) -> None:
    async with serving(FakeEstimator(), max_images=2, max_image_mb=1, max_request_mb=2) as service:
        kind = {"Content-Type": "application/json"}
        response = await service.http.post("/pose", content=content, headers=kind)
        code = {400: "invalid_image", 413: "payload_too_large", 422: "invalid_argument"}[status]
        assert_problem(response, status, code)
        assert detail in response.json()["detail"]
        assert (await service.http.post("/pose", json={"image": TEXT})).status_code == 200


async def test_a_parameter_in_query_and_object(service: Service) -> None:
    response = await service.http.post("/pose?max_people=2", json={"image": TEXT, "max_people": 2})
    assert_problem(response, 422, "invalid_argument")
    assert "given twice, in the query and in the JSON object" in response.json()["detail"]


def test_what_a_parameter_becomes() -> None:
    body = {"image": TEXT, "flip": True, "cycles": None, "min_score": 0.5, "priority": "high"}
    images, parameters = parse_json([json.dumps(body).encode()], "image", 1)
    assert images == [PNG]
    assert parameters == {"flip": "true", "min_score": "0.5", "priority": "high"}
