"""Cameras that the service reads: added, watched in three ways, broken, removed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from sdpose_client.v1 import pose_pb2
from service.access.callers import Caller
from service.cameras.broadcast import Broadcast
from service.cameras.settings import CameraFileError, parse_camera, read_camera_file
from service.errors import ErrorCode
from tests.cameras import camera
from tests.fakes import FakeEstimator
from tests.service.conftest import Service, rejected, serving, until_metrics_have
from tests.service.stream_clients import over_websocket

pytestmark = pytest.mark.anyio
LOCAL = "http://127.0.0.1:*/*"


@pytest.fixture
async def keyed(fake: FakeEstimator) -> AsyncIterator[Service]:
    """A service that reads cameras of this machine, behind a key that its clients have."""
    key = "let-me-in"
    async with serving(
        fake, camera_addresses=LOCAL, api_keys=key, api_key=key, max_streams=3
    ) as service:
        yield service


async def sse(answer: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Name and data of each server-sent event."""
    name = ""
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def camera_file(folder: Path, **addresses: str) -> Path:
    """A file of cameras by their names."""
    file = folder / "cameras.toml"
    tables = (
        f'[[camera]]\nname = "{name}"\naddress = "{one}"\n' for name, one in addresses.items()
    )
    file.write_text("".join(tables))
    return file


async def until(client: httpx.AsyncClient, name: str, **wanted: object) -> dict[str, Any]:
    """The camera's JSON as soon as it has these values."""
    async with asyncio.timeout(100):
        while True:
            status: dict[str, Any] = (await client.get(f"/cameras/{name}")).json()
            if all(status[field] == value for field, value in wanted.items()):
                return status
            await asyncio.sleep(0.02)


async def test_a_camera_from_its_request_to_its_end(keyed: Service) -> None:
    with camera(10_000) as address:
        asked = {"name": "door", "address": address, "config": {"options": {"max_people": 1}}}
        added = await keyed.http.post("/cameras", json=asked)
        assert added.status_code == 201
        assert added.headers["location"] == "/cameras/door"
        assert added.json()["state"] == "connecting"
        assert "secret" not in added.text
        status = await until(keyed.http, "door", state="live", people=1)
        assert status["image"] == {"width": 64, "height": 48}
        assert (await keyed.http.get("/cameras")).json()["cameras"][0]["name"] == "door"
        await until_metrics_have(keyed, 'sdpose_camera_up{camera="door"} 1.0')

        async with keyed.http.stream("GET", "/cameras/door/events") as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            coming = sse(events)
            name, first = await anext(coming)
            assert (name, first["state"], first["watchers"]) == ("camera", "live", 1)
            name, frame = await anext(coming)
            assert name == "pose"
            assert {"sequence", "timestamp", "dropped", "people", "image"} <= frame.keys()
            assert frame["people"][0]["id"] == 1
            _, later = await anext(coming)
            assert later["sequence"] > frame["sequence"]
            assert 0 < later["timestamp"] - frame["timestamp"] < 5
            # The last news of a camera that is removed.
            assert (await keyed.http.delete("/cameras/door")).status_code == 204
            rest = [event async for event in coming]
        assert all(name == "pose" for name, _ in rest)
    assert (await keyed.http.get("/cameras/door")).status_code == 404
    assert b"door" not in keyed.runtime.metrics.exposition()


async def test_events_and_watch_camera_tell_the_same(keyed: Service) -> None:
    with camera(10_000) as address:
        await keyed.http.post("/cameras", json={"name": "door", "address": address, "fps": 20})
        await until(keyed.http, "door", state="live")
        call = keyed.grpc.stub.WatchCamera(
            pose_pb2.WatchCameraRequest(name="door"), metadata=[("x-api-key", "let-me-in")]
        )
        told = await call.read()
        assert told.status.state == pose_pb2.CAMERA_STATE_LIVE
        assert (told.status.name, told.status.image.width) == ("door", 64)
        over_rest: dict[int, dict[str, Any]] = {}
        async with keyed.http.stream("GET", "/cameras/door/events") as events:
            async for name, data in sse(events):
                if name == "pose":
                    over_rest[data["sequence"]] = data
                if len(over_rest) == 5:
                    break
        both, people = 0, 0
        while both < 5:
            frame = (await call.read()).frame
            other = over_rest.get(frame.sequence)
            if other is None:
                continue
            both += 1
            assert frame.timestamp == other["timestamp"]
            found = [(person.id, person.keypoints[3].y) for person in frame.result.people]
            assert found == [
                (same.get("id", 0), same["keypoints"][3]["y"]) for same in other["people"]
            ]
            people += len(found)
        assert people, "shown from the second sighting on"
        call.cancel()


async def test_the_live_picture_is_drawn_for_who_watches(keyed: Service) -> None:
    with camera(10_000) as address:
        await keyed.http.post("/cameras", json={"name": "door", "address": address})
        await until(keyed.http, "door", state="live")
        async with keyed.http.stream("GET", "/cameras/door/live") as live:
            kind = live.headers["content-type"]
            assert kind == "multipart/x-mixed-replace; boundary=frame"
            seen = b""
            async for chunk in live.aiter_bytes():
                seen += chunk
                if seen.count(b"--frame") > 2:
                    break
        head, _, rest = seen.partition(b"\r\n\r\n")
        length = int(head.rsplit(b": ", 1)[1])
        image = cv2.imdecode(np.frombuffer(rest[:length], np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert image.shape == (48, 64, 3)
        # Once nobody watches, nothing is drawn and no one is counted.
        await until(keyed.http, "door", watchers=0)


async def test_a_line_that_breaks_is_told_and_comes_back(keyed: Service) -> None:
    with camera(30) as address:
        await keyed.http.post("/cameras", json={"name": "door", "address": address})
        async with keyed.http.stream("GET", "/cameras/door/events") as events:
            states: list[str] = []
            async with asyncio.timeout(100):
                async for name, data in sse(events):
                    if name == "camera":
                        states.append(data["state"])
                    if states[-2:] == ["broken", "live"] or len(states) > 9:
                        break
        assert states[:2] == ["connecting", "live"]
        assert states[-2:] == ["broken", "live"]
        status = await until(keyed.http, "door", state="live")
        assert status["reconnects"] >= 1
    broken = await until(keyed.http, "door", state="broken")
    assert broken["problem"]


async def test_a_redirect_is_not_followed(keyed: Service) -> None:
    elsewhere = await asyncio.start_server(lambda *_: gone.set(), "127.0.0.1", 0)
    gone = asyncio.Event()
    target = f"http://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}/"

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 302 Found\r\nLocation: %s\r\n\r\n" % target.encode())
        writer.close()

    leading = await asyncio.start_server(lead, "127.0.0.1", 0)
    async with elsewhere, leading:
        address = f"http://127.0.0.1:{leading.sockets[0].getsockname()[1]}/"
        await keyed.http.post("/cameras", json={"name": "door", "address": address})
        await until(keyed.http, "door", state="broken")
        assert not gone.is_set()
        await keyed.http.delete("/cameras/door")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ([], "camera"),
        ({}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a"}, "address"),
        ({"name": "a", "address": "rtsp://10.0.0.5/"}, "address"),
        ({"name": "a", "address": "http://127.0.0.1/", "fps": 0}, "fps"),
        ({"name": "a", "address": "http://127.0.0.1/", "fps": "5"}, "fps"),
        ({"name": "a", "address": "http://127.0.0.1/", "colour": 5}, "colour"),
        ({"name": "a", "address": "http://127.0.0.1/", "config": {"drop": "none"}}, "drop"),
        ({"name": "a", "address": "http://127.0.0.1/", "config": {"x": 1}}, "x"),
        (
            {"name": "a", "address": "http://127.0.0.1/", "config": {"options": {"cycles": 9}}},
            "cycles",
        ),
    ],
)
async def test_bad_requests(keyed: Service, asked: object, field: str) -> None:
    answer = await keyed.http.post("/cameras", json=asked)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field
    assert (await keyed.http.get("/cameras")).json() == {"cameras": []}


async def test_what_is_not_there_twice_or_too_much(keyed: Service) -> None:
    for path in ("/cameras/none", "/cameras/none/events", "/cameras/none/live"):
        answer = await keyed.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await keyed.http.delete("/cameras/none")).status_code == 404
    call = keyed.grpc.stub.WatchCamera(
        pose_pb2.WatchCameraRequest(name="none"), metadata=[("x-api-key", "let-me-in")]
    )
    assert (await call.code()).name == "NOT_FOUND"
    bare = keyed.grpc.stub.WatchCamera(pose_pb2.WatchCameraRequest(name="none"))
    assert (await bare.code()).name == "UNAUTHENTICATED"

    asked = {"name": "door", "address": "http://127.0.0.1:9/"}
    assert (await keyed.http.post("/cameras", json=asked)).status_code == 201
    assert (await keyed.http.post("/cameras", json=asked)).status_code == 409
    text = json.dumps(asked)
    as_text = await keyed.http.post(
        "/cameras", content=text, headers={"content-type": "text/plain"}
    )
    assert as_text.status_code == 415
    long = await keyed.http.post("/cameras", json={**asked, "address": "x" * 70_000})
    assert long.status_code == 413
    garbled = await keyed.http.post(
        "/cameras", content="{", headers={"content-type": "application/json"}
    )
    assert (garbled.status_code, garbled.json()["field"]) == (422, "body")
    async with httpx.AsyncClient() as keyless:
        assert (await keyless.get(f"{keyed.url}/cameras")).status_code == 401

    # Three may watch, and a place is free again when one leaves.
    cameras, caller = (
        keyed.runtime.cameras,
        keyed.runtime.access.identify("let-me-in", None, None),
    )
    with cameras.watch("door", caller), cameras.watch("door", caller):
        async with keyed.http.stream("GET", "/cameras/door/live"):
            refused = await keyed.http.get("/cameras/door/events")
            assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        await until(keyed.http, "door", watchers=2)
        async with keyed.http.stream("GET", "/cameras/door/events") as events:
            assert events.status_code == 200


async def test_none_may_be_added_by_default(service: Service) -> None:
    asked = {"name": "a", "address": "http://127.0.0.1/"}
    answer = await service.http.post("/cameras", json=asked)
    assert answer.status_code == 422
    assert "SDPOSE_CAMERA_ADDRESSES" in answer.json()["detail"]


async def test_those_of_the_file_are_read_from_the_start_and_end_with_the_service(
    fake: FakeEstimator, tmp_path: Path
) -> None:
    with camera(10_000) as address:
        async with serving(fake, camera_file=camera_file(tmp_path, door=address)) as service:
            await until(service.http, "door", state="live")
            async with service.http.stream("GET", "/cameras/door/events") as events:
                coming = sse(events)
                await anext(coming)
                service.stop.set()
                async with asyncio.timeout(100):
                    async for _ in coming:
                        pass
            assert service.runtime.cameras.all() == []


async def test_a_camera_that_may_not_stream_yet_is_tried_again(fake: FakeEstimator) -> None:
    with camera(10_000) as address:
        async with serving(fake, camera_addresses=LOCAL, max_streams=1) as service:
            async with over_websocket(service):
                await until_metrics_have(service, "sdpose_streams_active 1.0")
                await service.http.post("/cameras", json={"name": "door", "address": address})
                broken = await until(service.http, "door", state="broken")
                assert "1 streams are open" in broken["problem"]
            await until(service.http, "door", state="live", problem=None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[camera]\n", "not a TOML file"),
        ('[[camera]]\nname = "a"\n', "camera 1: address"),
        ('camera = "a"\n', "expected tables"),
        ('[other]\nname = "a"\n', "expected tables"),
        ('[[camera]]\nname = "a"\naddress = "x"\n' * 2, "two cameras are named a"),
        ("camera = [5]\n", "camera 1: camera: expected an object"),
    ],
)
def test_bad_camera_files(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text(text)
    with pytest.raises(CameraFileError, match=sentence):
        read_camera_file(file, 16)
    with pytest.raises(CameraFileError, match="cannot be read"):
        read_camera_file(tmp_path / "none.toml", 16)


def test_a_number_means_a_device() -> None:
    assert parse_camera({"name": "a", "address": "0"}).address == "/dev/video0"
    with rejected(ErrorCode.INVALID_ARGUMENT):
        parse_camera({"name": "a", "address": ""})


async def test_a_slow_watcher_gets_the_newest() -> None:
    source: Broadcast[int] = Broadcast(3)
    with source.subscribe(Caller("slow")) as slow, source.subscribe(Caller("fast")) as fast:
        for number in range(10):
            source.publish(number)
            assert await anext(fast) == number
        source.close()
        assert [number async for number in slow] == [7, 8, 9]
        assert [number async for number in fast] == []
    assert not source.subscriptions
