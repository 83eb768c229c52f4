"""What is particular to `WS /pose/stream`; what both front ends share is in `test_streams.py`."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from service.errors import ErrorCode
from service.rest.stream import CLOSE_CODE
from tests.fakes import FakeEstimator, marked_png
from tests.service.conftest import Service, serving
from tests.service.stream_clients import end_of, over_websocket, people_of

pytestmark = pytest.mark.anyio


def test_every_code_has_a_close_code() -> None:
    assert set(CLOSE_CODE) == set(ErrorCode)


async def test_answers_carry_the_request_id(service: Service) -> None:
    headers = {"additional_headers": {"X-Request-ID": "my-stream"}}
    async with over_websocket(service, handshake=headers) as stream:
        assert stream.connection.response.headers["X-Request-ID"] == "my-stream"
        await stream.send(marked_png(1))
        assert json.loads(await stream.connection.recv())["request_id"] == "my-stream"
        await stream.send(b"no image")
        told = json.loads(await stream.connection.recv())
        assert set(told) == {"sequence", "dropped", "error"}
        assert set(told["error"]) == {"code", "detail"}


async def test_parameters(service: Service, fake: FakeEstimator) -> None:
    fake.people = 3
    query = "?max_people=1&min_keypoint_score=0.88&cycles=2&flip_test=true&priority=low"
    query += "&stream=door"  # its name for balancers, for want of headers
    async with over_websocket(service, query=query) as stream:
        await stream.send(marked_png(1))
        (person,) = people_of(await stream.answer())
    assert len(person.keypoints) == 3
    assert fake.posed == [(2, True, 2)]  # the second might be a copy of the first


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("?max_people=0", "max_people"),
        ("?min_score=nan", "min_score"),
        ("?priority=urgent", "priority"),
        ("?cycles=1&cycles=2", "cycles"),
        ("?deadline_ms=5", "deadline_ms"),
        ("?stream=a&stream=b", "stream"),
        ("?boxes=[]", "boxes"),
        (f"?{'x' * 300}=1", "x" * 80),
    ],
)
async def test_bad_parameters(service: Service, query: str, name: str) -> None:
    async with over_websocket(service, query=query) as stream:
        end = await end_of(stream)
    assert (end.status, end.error.code, end.error.field) == (1008, "invalid_argument", name)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("hello", "message"),
        ("[]", "message"),
        ('{"other": {}}', "message"),
        ('{"config": 5}', "config"),
        ('{"config": {"colour": 5}}', "colour"),
        ('{"config": {"options": 5}}', "options"),
        ('{"config": {"options": {"deadline_ms": 5}}}', "deadline_ms"),
        ('{"config": {"drop": "all"}}', "drop"),
        ('{"config": {"detect_every": 0}}', "detect_every"),
        ('{"frame": {"sequence": -1}}', "sequence"),
        ('{"frame": {"sequence": true}}', "sequence"),
        ('{"frame": {"timestamp": "now"}}', "timestamp"),
        ('{"frame": {"boxes": [[1, 2]]}}', "boxes"),
        ('{"frame": {"colour": 5}}', "colour"),
        ('{"frame": {"timestamp": 1%s}}' % ("0" * 400), "timestamp"),
        ('{"frame": {"timestamp": 1e400}}', "timestamp"),
        ('{"frame": {"timestamp": -1.7e308}}', "timestamp"),
        ('{"frame": {"sequence": 1%s}}' % ("0" * 4000), "sequence"),
        ("[" * 500, "message"),
    ],
)
async def test_bad_text_messages(service: Service, text: str, field: str) -> None:
    async with over_websocket(service) as stream:
        await stream.connection.send(text)
        await stream.send(marked_png(1))  # a description belongs to a frame
        end = await end_of(stream)
    assert (end.status, end.error.code, end.error.field) == (1008, "invalid_argument", field)


@pytest.mark.parametrize(
    "text",
    ['{"config": {"options": [%s]}}' % ("0," * 9000), '{"config": {"a": "%s"}}' % ("b" * 99_999)],
)
async def test_a_text_message_is_counted_before_it_is_built(service: Service, text: str) -> None:
    async with over_websocket(service) as stream:
        await stream.connection.send(text)
        end = await end_of(stream)
    assert (end.status, end.error.code) == (1009, "payload_too_large")


def key_protocol(key: str) -> Subprotocol:
    shown = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    return Subprotocol(f"sdpose.key.{shown}")


async def test_keys() -> None:
    async with serving(FakeEstimator(), api_keys="one,tw/o~?") as service:
        ours = Subprotocol("sdpose.v1")
        good: list[dict[str, Any]] = [
            {"additional_headers": {"X-API-Key": "one"}},
            {"additional_headers": {"Authorization": "Bearer tw/o~?"}},
            {"subprotocols": [ours, key_protocol("tw/o~?")]},
            {"subprotocols": [key_protocol("one"), ours], "origin": "https://elsewhere.example"},
        ]
        for options in good:
            async with over_websocket(service, handshake=options) as stream:
                agreed = ours if "subprotocols" in options else None
                assert stream.connection.subprotocol == agreed
                await stream.send(marked_png(1))
                assert people_of(await stream.answer())
        bad: list[dict[str, Any]] = [
            {},
            {"additional_headers": {"X-API-Key": "three"}},
            {"subprotocols": [ours, key_protocol("three")]},
            {"subprotocols": [ours, Subprotocol("sdpose.key.a")]},
        ]
        for options in bad:
            with pytest.raises(InvalidStatus) as refused:
                async with over_websocket(service, handshake=options):
                    pass
            assert refused.value.response.status_code == 401
            assert refused.value.response.body is not None
            assert json.loads(refused.value.response.body)["code"] == "unauthenticated"


async def test_pages_of_other_sites_need_a_key(service: Service) -> None:
    async with over_websocket(service, handshake={"origin": service.url}) as stream:
        await stream.send(marked_png(1))
        assert people_of(await stream.answer())
    with pytest.raises(InvalidStatus) as refused:
        async with over_websocket(service, handshake={"origin": "https://elsewhere.example"}):
            pass
    assert refused.value.response.status_code == 401
