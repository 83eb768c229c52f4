"""What is particular to REST."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import pytest
from websockets.asyncio.client import connect

from sdpose_client import PoseAnswer, ServiceError
from sdpose_client.requests import Ask
from sdpose_core.vision.image_files import ImageLimits, decode_image
from service.errors import ErrorCode
from service.settings import SettingsError
from tests.fakes import PNG, FakeEstimator, marked_image, marked_png
from tests.pictures import encoded
from tests.service.conftest import (
    Service,
    quiet_settings,
    rejected,
    serving,
    until_metrics_have,
    wait_until,
)
from tests.service.rest_checks import (
    DOCUMENTED,
    DOCUMENTED_SEVERAL,
    assert_problem,
    outcome_of_the_only_request,
)

pytestmark = pytest.mark.anyio


RAW = {"Content-Type": "image/png"}


async def test_form_and_raw_body_give_the_documented_answer(http: httpx.AsyncClient) -> None:
    form = await http.post("/pose", files={"image": ("a.png", PNG)})
    raw = await http.post("/pose", content=PNG, headers=RAW)
    for response in (form, raw):
        assert response.status_code == 200
        DOCUMENTED.validate_json(response.content, strict=True, extra="forbid")
        assert response.json()["request_id"] == response.headers["x-request-id"]
    assert form.json()["people"] == raw.json()["people"]
    assert form.json()["image"] == {"width": 8, "height": 8}


async def test_parameters_from_query_and_form(http: httpx.AsyncClient, fake: FakeEstimator) -> None:
    fake.people = 3
    files = {"image": ("a.png", PNG)}
    assert len((await http.post("/pose?max_people=2", files=files)).json()["people"]) == 2
    form = await http.post("/pose", files=files, data={"max_people": "1"})
    assert len(form.json()["people"]) == 1
    both = await http.post("/pose?max_people=2", files=files, data={"max_people": "1"})
    assert_problem(both, 422, "invalid_argument")


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (
            {"content": b"x", "headers": {"Content-Type": "text/plain"}},
            415,
            "unsupported_media_type",
        ),
        ({"content": b"x"}, 415, "unsupported_media_type"),
        ({"data": {"a": "b"}}, 415, "unsupported_media_type"),
        ({"files": {"picture": ("a", PNG)}}, 422, "invalid_argument"),
        ({"files": {"image": (None, "text")}}, 422, "invalid_argument"),
        ({"files": {"max_people": (None, "1")}}, 422, "invalid_argument"),
        ({"files": [("image", ("a", PNG))] * 3}, 413, "payload_too_large"),
        ({"files": {"image": ("a", PNG)}, "params": {"colour": "red"}}, 422, "invalid_argument"),
        (
            {"files": {"image": ("a", PNG)}, "params": [("cycles", "1"), ("cycles", "2")]},
            422,
            "invalid_argument",
        ),
        (
            {"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            422,
            "invalid_argument",
        ),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            422,
            "invalid_argument",
        ),
        (
            {"content": bytes(2**20 + 1), "headers": RAW},
            413,
            "payload_too_large",
        ),
        ({"files": {"image": ("a", bytes(2 * 2**20 + 1))}}, 413, "payload_too_large"),
        (
            {"files": {"image": ("a", PNG)}, "data": {"boxes": " " * (2**20 + 1)}},
            413,
            "payload_too_large",
        ),
    ],
)
async def test_bad_bodies(request_: dict[str, object], status: int, code: str) -> None:
    async with serving(FakeEstimator(), max_images=2, max_image_mb=1, max_request_mb=2) as service:
        assert_problem(await service.http.post("/pose", **request_), status, code)  # type: ignore[arg-type]


async def test_an_image_as_the_body_is_a_request_too() -> None:
    async with serving(FakeEstimator(), max_image_mb=2, max_request_mb=1) as service:
        padded = PNG + bytes(2**20)
        assert_problem(
            await service.http.post("/pose", content=padded, headers=RAW), 413, "payload_too_large"
        )


async def test_several_images_in_order_with_their_own_errors(
    service: Service, http: httpx.AsyncClient
) -> None:
    images = [marked_png(5), b"no image", marked_png(9)]
    answers = await service.rest.estimate_many(images)
    first, second, third = answers
    assert isinstance(first, PoseAnswer)
    assert isinstance(second, ServiceError)
    assert isinstance(third, PoseAnswer)
    assert first.people[0].keypoints[0].x == 5
    assert third.people[0].keypoints[0].x == 9
    assert second.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE
    files = [("image", (str(index), image)) for index, image in enumerate(images)]
    response = await http.post("/pose", files=files)
    DOCUMENTED_SEVERAL.validate_json(response.content, strict=True, extra="forbid")


async def test_boxes_an_image(http: httpx.AsyncClient, fake: FakeEstimator) -> None:
    files = [("image", ("a", PNG)), ("image", ("b", PNG))]
    boxes = json.dumps([[[1, 2, 5, 6]], None])
    response = await http.post("/pose", files=files, data={"boxes": boxes})
    one, two = response.json()["results"]
    assert one["people"][0]["box"] == {"x": 1, "y": 2, "width": 4, "height": 4}
    assert two["people"][0]["box"]["width"] == 8
    assert fake.detected == [1]


async def test_overlay_is_a_jpeg_of_the_same_size(service: Service, fake: FakeEstimator) -> None:
    image = encoded(marked_image(0x0000FF, 64, 48), "PNG")
    picture = await service.rest.overlay(image, Ask(max_people=1))
    drawn = decode_image(picture, ImageLimits())
    assert drawn.shape == (48, 64, 3)
    assert drawn.std() > 10, "something must be drawn on the plain blue"
    with rejected(ErrorCode.UNSUPPORTED_MEDIA_TYPE):
        await service.rest.overlay(b"no image")


async def test_overlay_takes_one_image(http: httpx.AsyncClient) -> None:
    files = [("image", ("a", PNG)), ("image", ("b", PNG))]
    assert_problem(await http.post("/pose/overlay", files=files), 422, "invalid_argument")


async def test_models(http: httpx.AsyncClient) -> None:
    body = (await http.get("/models")).json()
    assert body["models"]["student"] == "fake-student"
    assert body["keypoints"][0] == "nose"
    assert len(body["keypoints"]) == 17
    assert body["input_size"] == {"width": 192, "height": 256}


async def test_unknown_paths_and_methods_are_problems_too(http: httpx.AsyncClient) -> None:
    assert_problem(await http.get("/nothing"), 404, "invalid_argument")
    refused = await http.get("/pose")
    assert_problem(refused, 405, "invalid_argument")
    assert refused.headers["allow"] == "POST"


async def test_a_slash_at_the_end_is_none(http: httpx.AsyncClient) -> None:
    answer = await http.post("/pose/", content=PNG, headers=RAW)
    assert (answer.status_code, len(answer.json()["people"])) == (200, 1)
    assert (await http.get("/livez/")).status_code == 200
    assert (await http.get("/nowhere/")).status_code == 404


@pytest.mark.parametrize("sent", ["/pose-api", ""], ids=["kept by the proxy", "taken away"])
async def test_behind_a_proxy_with_a_prefix(sent: str) -> None:
    async with serving(FakeEstimator(), root_path="/pose-api") as service:
        answer = await service.http.post(f"{sent}/pose", content=PNG, headers=RAW)
        assert answer.status_code == 200
        page = (await service.http.get(f"{sent}/")).text
        for name in re.findall(r'(?:src|href)="([^"#:]+)"', page):
            assert not name.startswith("/"), "would leave the prefix"
            assert (await service.http.get(f"{sent}/{name}")).status_code == 200
        assert "/pose-api/openapi.json" in (await service.http.get(f"{sent}/docs")).text
        assert (await service.http.get(f"{sent}/openapi.json")).json()["servers"] == [
            {"url": "/pose-api"}
        ]
        assert (await service.http.get(f"{sent}/nowhere")).status_code == 404
        await until_metrics_have(service, 'sdpose_requests_total{api="rest_pose",outcome="ok"} 1.0')
        async with connect(f"ws{service.url[4:]}{sent}/pose/stream") as socket:
            await socket.send(json.dumps({"config": {}}))
            await socket.send(json.dumps({"frame": {"sequence": 1}}))
            await socket.send(PNG)
            assert "people" in await socket.recv()


@pytest.mark.parametrize("prefix", ["pose", "/pose/", "/a b", "/a?b", "//"])
def test_a_prefix_is_a_path(prefix: str) -> None:
    with pytest.raises(SettingsError, match=r"root_path|ROOT_PATH"):
        quiet_settings(root_path=prefix)


async def test_retry_after(fake: FakeEstimator) -> None:
    async with serving(fake) as service:
        service.runtime.reject_new_work()
        response = await service.http.post("/pose", files={"image": ("a", PNG)})
        assert_problem(response, 503, "unavailable")
        assert int(response.headers["retry-after"]) >= 1


async def test_keys_by_both_headers() -> None:
    async with serving(FakeEstimator(), api_keys="secret") as service:
        files = {"image": ("a", PNG)}
        for headers in ({"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}):
            assert (
                await service.http.post("/pose", files=files, headers=headers)
            ).status_code == 200
        refused = await service.http.post("/pose", files=files)
        assert_problem(refused, 401, "unauthenticated")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert_problem(await service.http.get("/models"), 401, "unauthenticated")
        for path in ("/livez", "/readyz", "/metrics", "/", "/docs"):
            assert (await service.http.get(path)).status_code == 200


# What answers never hold -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        {"boxes": json.dumps([[["x" * 500_000], 2, 3, 4]])},
        {"boxes": json.dumps([["x" * 500_000, 2, 3, 4]])},
        {"boxes": json.dumps([["x" * 100_000] * 4] * 2)},
        {"x" * 50_000: "1"},
        {"cycles": "x" * 500_000},
    ],
    ids=["list", "text", "texts", "name", "cycles"],
)
async def test_bad_values_are_not_echoed_whole(
    http: httpx.AsyncClient, data: dict[str, str]
) -> None:
    refused = await http.post("/pose", files={"image": ("a", PNG)}, data=data)
    assert_problem(refused, 422, "invalid_argument")
    assert len(refused.content) < 1000


async def test_a_request_without_any_answer_is_not_counted_ok(
    service: Service, http: httpx.AsyncClient
) -> None:
    files = [("image", ("a", b"")), ("image", ("b", b"no image"))]
    response = await http.post("/pose", files=files)
    assert response.status_code == 200
    assert [entry["error"]["code"] for entry in response.json()["results"]] == [
        "invalid_image",
        "unsupported_media_type",
    ]
    assert 'outcome="invalid_image"' in await outcome_of_the_only_request(service)


async def test_an_overloaded_entry_says_when_to_come_back() -> None:
    fake = FakeEstimator()
    async with serving(fake, max_images=100) as service:  # of which 64 may wait
        fake.gate.clear()
        asking = asyncio.create_task(service.rest.estimate_many([PNG] * 100))
        shed = service.runtime.metrics.shed_total.labels("queue_full")
        await wait_until(lambda: shed._value.get() >= 2)
        fake.gate.set()
        answers = await asking
    refused = [answer for answer in answers if isinstance(answer, ServiceError)]
    assert 2 <= len(refused) < 100
    for error in refused:
        assert error.code is ErrorCode.OVERLOADED
        assert error.retry_after_s is not None
        assert error.retry_after_s > 0


@pytest.mark.parametrize("deadline", ["-5", "0", "nan", "inf", "1_0", "soon", ""])
async def test_a_deadline_that_is_none_is_told_so(http: httpx.AsyncClient, deadline: str) -> None:
    """And not taken for one that cannot be met, which would be `overloaded`."""
    answer = await http.post(f"/pose?deadline_ms={deadline}", content=PNG, headers=RAW)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_argument")
