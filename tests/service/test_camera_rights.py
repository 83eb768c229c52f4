"""Whose a camera is: who may add, see, watch and remove it, and whose limits it counts for."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from sdpose_client.v1 import pose_pb2
from tests.cameras import camera
from tests.fakes import FakeEstimator
from tests.service.conftest import Service, serving, until_metrics_have
from tests.service.keys import table, written
from tests.service.test_cameras import LOCAL, camera_file, until

pytestmark = pytest.mark.anyio
CAMERAS = 'scopes = ["pose", "cameras"]\n'
NAMES = ("plain", "small", "other", "boss")


@pytest.fixture
async def address() -> AsyncIterator[str]:
    with camera(10_000) as found:
        yield found


@asynccontextmanager
async def watched(
    key_file: Path, tmp_path: Path, address: str, **settings: Any
) -> AsyncIterator[tuple[Service, dict[str, httpx.AsyncClient]]]:
    """A service with a camera of the operator's, and a client for each key."""
    small = CAMERAS + 'max_streams = 2\nmax_priority = "normal"\ncrops_per_second = 0.001\n'
    written(
        key_file,
        table("plain", "plain"),
        table("small", "small", small),
        table("other", "other", CAMERAS),
        table("boss", "boss", 'scopes = ["cameras", "admin"]\n'),
    )
    file = camera_file(tmp_path, hall=address)
    async with serving(
        FakeEstimator(people=1),
        key_file=key_file,
        camera_file=file,
        camera_addresses=LOCAL,
        **settings,
    ) as service:
        clients = {
            name: httpx.AsyncClient(base_url=service.url, headers={"X-API-Key": name}, timeout=100)
            for name in NAMES
        }
        try:
            yield service, clients
        finally:
            for client in clients.values():
                await client.aclose()


async def names(client: httpx.AsyncClient) -> list[str]:
    return [each["name"] for each in (await client.get("/cameras")).json()["cameras"]]


async def watch_over_grpc(service: Service, key: str, name: str) -> str:
    call = service.grpc.stub.WatchCamera(
        pose_pb2.WatchCameraRequest(name=name), metadata=[("x-api-key", key)]
    )
    try:
        await call.read()
    except grpc.aio.AioRpcError as refused:
        return refused.code().name
    call.cancel()
    return "OK"


async def test_who_may_add_see_watch_and_remove(
    key_file: Path, tmp_path: Path, address: str
) -> None:
    async with watched(key_file, tmp_path, address) as (service, clients):
        door = {"name": "door", "address": address}
        assert (await clients["plain"].post("/cameras", json=door)).status_code == 403
        assert (await clients["other"].post("/cameras", json=door)).status_code == 201
        assert await names(clients["plain"]) == []
        assert await names(clients["small"]) == ["hall"]
        assert await names(clients["other"]) == await names(clients["boss"]) == ["hall", "door"]
        for key, hall, its in (
            ("plain", 403, 403),
            ("small", 200, 404),
            ("other", 200, 200),
            ("boss", 200, 200),
        ):
            for name, expected in (("hall", hall), ("door", its)):
                assert (await clients[key].get(f"/cameras/{name}")).status_code == expected
                for path in ("events", "live"):
                    async with clients[key].stream("GET", f"/cameras/{name}/{path}") as answer:
                        assert answer.status_code == expected, (key, name, path)
                code = {200: "OK", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}[expected]
                assert await watch_over_grpc(service, key, name) == code, (key, name)
        for key, hall, its in (("plain", 403, 403), ("small", 403, 404), ("other", 403, 204)):
            assert (await clients[key].delete("/cameras/hall")).status_code == hall
            assert (await clients[key].delete("/cameras/door")).status_code == its
        assert (await clients["other"].post("/cameras", json=door)).status_code == 201
        for name in ("door", "hall"):
            assert (await clients["boss"].delete(f"/cameras/{name}")).status_code == 204


async def test_it_counts_for_the_key(key_file: Path, tmp_path: Path, address: str) -> None:
    with camera(10_000) as its_own:
        async with watched(key_file, tmp_path, address) as (service, clients):
            await it_counts(service, clients["small"], its_own)


async def it_counts(service: Service, small: httpx.AsyncClient, address: str) -> None:
    urgent = {"name": "a", "address": address, "config": {"options": {"priority": "high"}}}
    refused = await small.post("/cameras", json=urgent)
    assert (refused.status_code, refused.json()["field"]) == (403, "priority")
    assert (await small.post("/cameras", json={**urgent, "config": {}})).status_code == 201
    # One image was looked at, which is all that the key may have for a quarter of an hour.
    before = await until(small, "a", state="live")
    while (await small.get("/cameras/a")).json()["frames"] < before["frames"] + 5:
        await asyncio.sleep(0.02)
    await until_metrics_have(service, 'sdpose_camera_frames_total{camera="a",outcome="ok"} 1.0')
    refused = await small.post("/cameras", json={"name": "b", "address": address})
    assert refused.status_code == 429
    assert "crops a second" in refused.json()["detail"]
    # Its camera and what it watches are its two streams; the camera's own place comes back.
    async with small.stream("GET", "/cameras/hall/live") as one:
        assert one.status_code == 200
        assert (await small.get("/cameras/hall/events")).status_code == 429
    assert (await small.delete("/cameras/a")).status_code == 204
    await until(small, "hall", watchers=0)
    caller = service.runtime.access.identify("small", None, None)
    with caller.stream(looking=False), caller.stream(looking=False):
        pass


async def test_one_key_takes_not_all_cameras_and_not_all_places(
    key_file: Path, tmp_path: Path, address: str
) -> None:
    settings = {"max_cameras": 6, "max_streams": 5}
    async with watched(key_file, tmp_path, address, **settings) as (service, clients):
        added = [
            (await clients["other"].post("/cameras", json={"name": f"c{i}", "address": address}))
            for i in range(6)
        ]
        assert [answer.status_code for answer in added] == [201] * 4 + [429] * 2
        cameras = service.runtime.cameras
        other, boss = (
            service.runtime.access.identify(key, None, None) for key in ("other", "boss")
        )
        with (
            cameras.watch("hall", other),
            cameras.watch("hall", other),
            cameras.watch("c0", other),
            cameras.watch_pictures("c0", other),
        ):
            assert (await clients["other"].get("/cameras/hall/events")).status_code == 429
            with cameras.watch("hall", boss):
                pass


async def test_what_a_key_had_ends_with_it(key_file: Path, tmp_path: Path, address: str) -> None:
    async with watched(key_file, tmp_path, address) as (service, clients):
        assert (
            await clients["other"].post("/cameras", json={"name": "door", "address": address})
        ).status_code == 201
        async with (
            clients["other"].stream("GET", "/cameras/hall/events") as events,
            clients["boss"].stream("GET", "/cameras/door/events") as of_door,
        ):
            written(key_file, table("boss", "boss", 'scopes = ["cameras", "admin"]\n'))
            async with asyncio.timeout(100):
                for stream in (events, of_door):
                    async for _ in stream.aiter_lines():
                        pass
        assert await names(clients["boss"]) == ["hall"]
        assert service.runtime.access.names == ["boss"]


async def test_without_keys_a_camera_is_of_its_address_and_those_of_the_file_stay(
    tmp_path: Path, address: str
) -> None:
    file = camera_file(tmp_path, hall=address)
    async with serving(FakeEstimator(), camera_file=file, camera_addresses=LOCAL) as service:
        assert (
            await service.http.post("/cameras", json={"name": "door", "address": address})
        ).status_code == 201
        assert await names(service.http) == ["hall", "door"]
        assert (await service.http.delete("/cameras/door")).status_code == 204
        refused = await service.http.delete("/cameras/hall")
        assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("user", ["me:w@rd-s3cret", "me:w/rd-s3cret", "me:s3cret"])
async def test_a_password_is_in_no_answer_and_no_log_line(
    user: str, key_file: Path, tmp_path: Path, address: str, debug_logs: io.StringIO
) -> None:
    host = address.partition("@")[2]
    secret = f"http://{user}@{host}?user=me&pwd=s3cret%21#s3cret"
    broken = f"http://{user}@127.0.0.1:9/a?token=s3cret"
    file = camera_file(tmp_path, hall=secret, broken=broken)
    async with serving(FakeEstimator(), camera_file=file, camera_addresses=LOCAL) as service:
        answers = [await service.http.get("/cameras")]
        await until(service.http, "broken", state="broken")
        for wrong in (secret.replace("http", "ftp"), broken.replace("127.0.0.1", "10.9.9.9")):
            asked = {"name": "a", "address": wrong}
            answers.append(await service.http.post("/cameras", json=asked))
        answers += [await service.http.get(path) for path in ("/cameras/broken", "/metrics")]
        async with service.http.stream("GET", "/cameras/broken/events") as events:
            lines = events.aiter_lines()
            first = [await anext(lines) for _ in range(3)]
        call = service.grpc.stub.WatchCamera(pose_pb2.WatchCameraRequest(name="broken"))
        message = str(await call.read())
        call.cancel()
    shown = [*(answer.text for answer in answers), *first, message, debug_logs.getvalue()]
    assert not [text for text in shown if "s3cret" in text or "//me" in text]
    assert '"http://127.0.0.1:9/a?token=***"' in debug_logs.getvalue()
