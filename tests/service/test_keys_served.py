"""Keys as both front ends hold callers to them; where they may not show."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sdpose_client import (
    Ask,
    AsyncGrpcPoseClient,
    AsyncRestPoseClient,
    AsyncWebSocketPoseClient,
    ErrorCode,
    ServiceError,
)
from service.access.keys import digest_of
from service.rpc.server import SERVICE_NAME
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import (
    ONCE,
    Service,
    rejected,
    serving,
    traced,
    until_metrics_have,
    wait_until,
)
from tests.service.keys import KEY, table, written
from tests.service.stream_clients import Over, end_of, over_grpc, over_websocket, people_of

pytestmark = pytest.mark.anyio


FRONT_ENDS = ["rest", "grpc", "websocket"]


async def ask(service: Service, front: str, key: str | None, wanted: Ask | None = None) -> int:
    """People found over one front end. Raises `ServiceError`."""
    wanted = wanted or Ask()
    if front == "rest":
        async with AsyncRestPoseClient(service.url, api_key=key, retry=ONCE) as rest:
            return len((await rest.estimate(PNG, wanted)).people)
    if front == "grpc":
        async with AsyncGrpcPoseClient(service.target, api_key=key, retry=ONCE) as rpc:
            return len((await rpc.estimate(PNG, wanted)).people)
    websocket = AsyncWebSocketPoseClient(service.url, api_key=key)
    async for answer in websocket.stream([PNG], wanted):
        if isinstance(answer.outcome, ServiceError):
            raise answer.outcome
        return len(answer.outcome.people)
    raise AssertionError("the stream ended without an answer")


@pytest.mark.parametrize("front", FRONT_ENDS)
async def test_every_front_end_holds_a_key_to_it(front: str, key_file: Path) -> None:
    written(
        key_file,
        table("kiosk"),
        table("slow", "slow", "crops_per_second = 1\nmax_streams = 1\n"),
        table("old", "old", "expires = 2020-01-01\n"),
        table("vip", "vip", 'max_priority = "high"\n'),
        table("last", "last", 'max_priority = "low"\n'),
        table("admin", "admin", 'scopes = ["admin"]\n'),
    )
    async with serving(FakeEstimator(people=2), key_file=key_file, api_keys="plain") as service:
        for key in (KEY, "plain", "vip", "last"):
            assert await ask(service, front, key) == 2
        assert await ask(service, front, "vip", Ask(priority="high")) == 2
        for key, wanted, code in (
            (None, Ask(), ErrorCode.UNAUTHENTICATED),
            ("wrong", Ask(), ErrorCode.UNAUTHENTICATED),
            ("old", Ask(), ErrorCode.UNAUTHENTICATED),
            ("admin", Ask(), ErrorCode.PERMISSION_DENIED),
            (KEY, Ask(priority="high"), ErrorCode.PERMISSION_DENIED),
            ("last", Ask(priority="normal"), ErrorCode.PERMISSION_DENIED),
        ):
            with pytest.raises(ServiceError) as refused:
                await ask(service, front, key, wanted)
            assert refused.value.code is code, (key, refused.value)
        assert await ask(service, front, "slow") == 2  # overdrawn by one from here on
        with rejected(ErrorCode.OVERLOADED, match="crops a second") as refused:
            await ask(service, front, "slow")
        assert refused.value.retry_after_s
        text = service.runtime.metrics.exposition().decode()
        assert 'sdpose_key_requests_total{key="vip",outcome="ok"} 2.0' in text
        assert 'sdpose_shed_total{reason="key_limit"} 1.0' in text
        assert 'key="wrong"' not in text


async def test_requests_of_a_key_are_counted_over_both_front_ends(key_file: Path) -> None:
    written(key_file, table("kiosk", more="requests_per_second = 0.01\n"))
    async with serving(FakeEstimator(), key_file=key_file) as service:
        assert await ask(service, "rest", KEY) == 1
        for front in ("rest", "grpc"):
            with pytest.raises(ServiceError, match="requests a second"):
                await ask(service, front, KEY)


@pytest.mark.parametrize("over", [over_grpc, over_websocket])
async def test_streams_of_a_key_are_counted(key_file: Path, over: Over) -> None:
    written(key_file, table("kiosk", more="max_streams = 1\n"))
    async with serving(FakeEstimator(), key_file=key_file) as service:
        async with over(service, KEY) as stream:
            await stream.send(PNG)
            await stream.answer()
            async with over(service, KEY) as second:
                assert "may have 1 streams" in (await end_of(second)).error.message
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        async with over(service, KEY) as again:
            await again.send(PNG)
            assert people_of(await again.answer())


async def test_a_changed_file_counts_without_a_restart(
    key_file: Path, quiet_logs: io.StringIO
) -> None:
    written(key_file, table("kiosk"))
    async with serving(FakeEstimator(), key_file=key_file) as service:
        assert await ask(service, "rest", KEY) == 1
        refused = quiet_logs.getvalue().count("keys not read")
        written(key_file, "[kiosk\n")
        await wait_until(lambda: quiet_logs.getvalue().count("keys not read") != refused)
        assert await ask(service, "rest", KEY) == 1, "a damaged file changes nothing"
        written(key_file, "")
        await wait_until(lambda: quiet_logs.getvalue().count("keys not read") != refused + 1)
        with pytest.raises(ServiceError):
            await ask(service, "rest", None)
        replaced = written(key_file.with_name("new.toml"), table("other", "other"))
        replaced.rename(key_file)
        await wait_until(lambda: service.runtime.access.names == ["other"])
        assert await ask(service, "rest", "other") == 1
        with pytest.raises(ServiceError, match="not known"):
            await ask(service, "rest", KEY)


@pytest.mark.parametrize("over", [over_grpc, over_websocket])
async def test_a_stream_ends_when_its_key_is_taken_back(key_file: Path, over: Over) -> None:
    written(key_file, table("kiosk"), table("other", "other"))
    async with serving(FakeEstimator(), key_file=key_file) as service, over(service, KEY) as stream:
        await stream.send(PNG)
        await stream.answer()
        written(key_file, table("other", "other"))
        await wait_until(lambda: service.runtime.access.names == ["other"])
        await stream.send(PNG)
        assert (await end_of(stream)).error.code is ErrorCode.UNAUTHENTICATED


async def test_a_key_is_in_no_log_line_and_no_trace(
    key_file: Path, debug_logs: io.StringIO
) -> None:
    tracer, seen = traced()
    settings = {"key_file": written(key_file, table("kiosk")), "api_keys": "plain-secret"}
    async with serving(FakeEstimator(), tracer=tracer, **settings) as service:
        for front in FRONT_ENDS:
            await ask(service, front, KEY)
            for wrong in ("a-wrong-secret", None):
                with pytest.raises(ServiceError) as refused:
                    await ask(service, front, wrong)
                assert "secret" not in str(refused.value)
        await service.http.get("/models", headers={"X-API-Key": KEY})
        await until_metrics_have(service, 'sdpose_key_requests_total{key="kiosk",outcome="ok"} 3.0')
    lines = debug_logs.getvalue()
    spans = [span.to_json() for span in seen.get_finished_spans()]
    assert len(spans) > 10
    for text in (lines, *spans):
        assert KEY not in text
        assert "secret" not in text
        assert digest_of(KEY).hex() not in text
    calls = [json.loads(line) for line in lines.splitlines() if '"event": "call"' in line]
    assert {call.get("key") for call in calls} >= {"kiosk", None}


async def test_the_service_does_not_start_with_a_wrong_file(key_file: Path) -> None:
    with pytest.raises(RuntimeError, match="holds no key"):
        async with serving(FakeEstimator(), key_file=written(key_file, "")):
            pass


async def test_health_is_open_where_keys_are_set(key_file: Path) -> None:
    async with serving(FakeEstimator(), key_file=written(key_file, table("kiosk"))) as service:
        for path in ("/livez", "/readyz"):
            assert (await service.http.get(path)).status_code == 200
        assert (await service.http.get("/models")).status_code == 401
        stub = health_pb2_grpc.HealthStub(service.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
