"""Keys: their file, what each may do, and how both front ends hold them to it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typer.testing import CliRunner

from service.access.callers import Access, Caller, Rate
from service.access.keys import (
    Key,
    KeyFileError,
    Scope,
    digest_of,
    entry,
    known_keys,
    new_key,
    plain_keys,
    read_key_file,
)
from service.cli.main import app
from service.client import (
    Ask,
    AsyncGrpcPoseClient,
    AsyncRestPoseClient,
    AsyncWebSocketPoseClient,
    ErrorCode,
    Retry,
    ServiceError,
)
from service.parameters import Priority
from service.rpc.server import SERVICE_NAME
from service.telemetry.logs import configure_logs
from service.telemetry.tracing import OpenTelemetryTracer
from tests.fakes import FakeEstimator, marked_image
from tests.pictures import encoded
from tests.service.conftest import Service, serving, until_metrics_have

pytestmark = pytest.mark.anyio

PNG = encoded(marked_image(0x010203), "PNG")
KEY = "sdp_a-key-for-tests"
ONCE = Retry(attempts=1)


def table(name: str, key: str = KEY, more: str = "") -> str:
    return entry(name, key) + more + "\n"


def written(path: Path, *tables: str) -> Path:
    path.write_text("\n".join(tables), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def access(*keys: Key, shed: Callable[[], None] = lambda: None) -> Access:
    return Access(keys, Priority.NORMAL, shed)


def a_key(name: str = "a", key: str = KEY, **limits: object) -> Key:
    return Key.model_validate({"name": name, "sha256": digest_of(key).hex(), **limits})


def test_a_file_is_read_whole(file: Path) -> None:
    more = (
        "requests_per_second = 20\ncrops_per_second = 100.5\nmax_streams = 4\n"
        'max_priority = "high"\nexpires = 2031-02-03\nscopes = ["pose", "admin"]\n'
    )
    one, other = read_key_file(written(file, table("kiosk", KEY, more), table("door", "other")))
    assert (one.name, one.digest) == ("kiosk", digest_of(KEY))
    assert (one.requests_per_second, one.crops_per_second, one.max_streams) == (20, 100.5, 4)
    assert one.max_priority is Priority.HIGH
    assert one.expires == datetime(2031, 2, 3, tzinfo=UTC)
    assert one.scopes == {Scope.POSE, Scope.ADMIN}
    assert other.scopes == {Scope.POSE}
    assert other.max_priority is other.expires is other.max_streams is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[kiosk]\n", "kiosk: sha256 must be the 64 hexadecimal digits"),
        ('[kiosk]\nsha256 = "abc"\n', "kiosk: sha256 must be"),
        (table("kiosk", more="requests_per_sec = 2\n"), "there is no 'requests_per_sec'; known"),
        (table("kiosk", more="requests_per_second = 0\n"), "requests_per_second: Input should be"),
        (table("kiosk", more="crops_per_second = inf\n"), "crops_per_second: Input should be"),
        (table("kiosk", more='expires = "soon"\n'), "expires: must be a date of TOML"),
        (table("kiosk", more='scopes = ["root"]\n'), "scopes"),
        (table("kiosk", more='max_priority = "top"\n'), "max_priority"),
        (table("kiosk", more='name = "other"\n'), "there is no field name"),
        (table("kiosk") + table("door"), "kiosk and door are the same key"),
        ('["a b"]\nsha256 = "0"\n', "'a b' is no name for a key"),
        ("kiosk = 3\n", "kiosk must be a table"),
        ("[kiosk\n", "not a TOML file"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(file: Path, content: str, told: str) -> None:
    with pytest.raises(KeyFileError) as refused:
        read_key_file(written(file, content))
    assert told in str(refused.value)
    assert str(file) in str(refused.value)
    assert digest_of(KEY).hex() not in str(refused.value)


def test_a_file_that_is_missing_or_empty_lets_no_one_in(file: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_key_file(file)
    with pytest.raises(KeyFileError, match="holds no key"):
        known_keys((), written(file, ""))
    assert [key.name for key in known_keys(["b", "a"], file)] == ["key-1", "key-2"]


def test_keys_are_told_apart_by_their_hash_alone() -> None:
    known = access(*plain_keys(["one", "two"]))
    assert known.identify("one", None, None).name == "key-1"
    assert known.identify(None, "Bearer two", None).name == "key-2"
    assert known.identify(None, "bearer  two", None).name == "key-2"
    for shown in ("", "On", "one ", "ONE", digest_of("one").hex(), "onetwo"):
        with pytest.raises(ServiceError) as refused:
            known.identify(shown, None, None)
        assert refused.value.code is ErrorCode.UNAUTHENTICATED
    for authorization in (None, "Basic one", "one", "Bearer"):
        with pytest.raises(ServiceError) as refused:
            known.identify(None, authorization, None)
        assert refused.value.code is ErrorCode.UNAUTHENTICATED
    (hidden,) = plain_keys(["hush"])
    assert "hush" not in f"{hidden} {hidden.model_dump()} {access(hidden)}"


def test_without_keys_a_share_is_an_address() -> None:
    known = access()

    def share(address: str | None) -> object:
        return known.identify(None, None, address).share

    assert share("10.0.0.1") == share("10.0.0.1") == share("::ffff:10.0.0.1")
    assert share("10.0.0.1") != share("10.0.0.2")
    assert share("2001:db8::1") == share("2001:db8::ffff:2"), "a host has a whole /64"
    assert share("2001:db8::1") != share("2001:db8:0:1::1")
    assert share("fe80::1%eth0") == share("fe80::1")
    assert share(None) == share(None)
    assert known.identify("any", "Bearer thing", "10.0.0.1").name is None


def test_a_key_expires_and_may_be_taken_back() -> None:
    now = datetime.now(UTC)
    known = access(a_key(expires=now + timedelta(seconds=0.05)), a_key("b", "b"))
    caller, other = known.identify(KEY, None, None), known.identify("b", None, None)
    caller.check()
    while datetime.now(UTC) <= now + timedelta(seconds=0.05):
        pass
    for use in (caller.check, lambda: known.identify(KEY, None, None)):
        with pytest.raises(ServiceError, match="has expired"):
            use()
    known.replace([a_key("c", "c")])
    with pytest.raises(ServiceError, match="not known any more"):
        other.check()
    other.charge(3)  # what was let in before ends without a word


def test_rates_allow_a_burst_of_a_second() -> None:
    now = 0.0
    rate = Rate(4.0, lambda: now)
    for _ in range(4):
        assert rate.wait_s() == 0
        rate.spend(1)
    assert rate.wait_s() == pytest.approx(0.25)
    now = 0.25
    assert rate.wait_s() == 0
    rate.spend(9)  # overdrawn: what was not known before must flow in again
    assert rate.wait_s() == pytest.approx(9 / 4)
    now = 1000.0
    for _ in range(4):
        assert rate.wait_s() == 0
        rate.spend(1)
    assert rate.wait_s() > 0, "what is not used is not saved up"
    slow = Rate(0.5, lambda: now)
    assert slow.wait_s() == 0
    slow.spend(1)
    assert slow.wait_s() == pytest.approx(2.0)


def test_limits_of_a_key() -> None:
    shed: list[int] = []
    known = access(
        a_key(requests_per_second=2, crops_per_second=10, max_streams=1),
        a_key("free", "free"),
        shed=lambda: shed.append(1),
    )
    caller, free = known.identify(KEY, None, None), known.identify("free", None, None)
    caller.check(requests=1)
    caller.check(requests=1)
    with pytest.raises(ServiceError, match="may have 2 requests a second") as refused:
        known.identify(KEY, None, None).check(requests=1)  # another connection of the same key
    assert refused.value.code is ErrorCode.OVERLOADED
    assert 0 < (refused.value.retry_after_s or 0) <= 0.5
    caller.check()  # frames of streams are no requests
    caller.charge(25)
    with pytest.raises(ServiceError, match="may have 10 crops a second") as refused:
        caller.check()
    assert 1.4 < (refused.value.retry_after_s or 0) <= 1.6
    assert len(shed) == 2
    for _ in range(100):
        free.check(requests=1)
        free.charge(100)
    calm = access(a_key(max_streams=1)).identify(KEY, None, None)
    with calm.stream(), pytest.raises(ServiceError, match="may have 1 streams"), calm.stream():
        pass
    with calm.stream():
        pass


def test_new_limits_count_at_once_and_use_is_remembered() -> None:
    known = access(a_key(requests_per_second=1))
    caller = known.identify(KEY, None, None)
    caller.check(requests=1)
    known.replace([a_key(requests_per_second=1, max_streams=3)])
    with pytest.raises(ServiceError, match="requests a second"):
        caller.check(requests=1)
    known.replace([a_key(requests_per_second=5)])
    caller.check(requests=1)


def test_priority_and_scope() -> None:
    known = access(a_key(), a_key("vip", "vip", max_priority="high", scopes=["admin"]))
    plain, vip = known.identify(KEY, None, None), known.identify("vip", None, None)
    for priority in (Priority.NORMAL, Priority.LOW):
        plain.check_priority(priority)
    with pytest.raises(ServiceError, match="high is more than the normal") as refused:
        plain.check_priority(Priority.HIGH)
    assert (refused.value.code, refused.value.field) == (ErrorCode.PERMISSION_DENIED, "priority")
    vip.check_priority(Priority.HIGH)
    known.check_scope(plain, Scope.POSE)
    known.check_scope(vip, Scope.ADMIN)
    for caller, scope in ((plain, Scope.ADMIN), (vip, Scope.POSE), (Caller("any"), Scope.ADMIN)):
        with pytest.raises(ServiceError) as refused:
            known.check_scope(caller, scope)
        assert refused.value.code is ErrorCode.PERMISSION_DENIED


def test_the_command_makes_keys_and_shows_them_once(file: Path) -> None:
    run = CliRunner().invoke
    made = run(app, ["keys", "new", "kiosk", "--file", str(file)])
    assert made.exit_code == 0
    key = made.output.split("only now): ")[1].split()[0]
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert run(app, ["keys", "new", "door", "--file", str(file)]).exit_code == 0
    assert [each.name for each in read_key_file(file)] == ["kiosk", "door"]
    assert access(*read_key_file(file)).identify(key, None, None).name == "kiosk"
    twice = run(app, ["keys", "new", "door", "--file", str(file)])
    assert isinstance(twice.exception, KeyFileError)
    shown = run(app, ["keys", "list", str(file)]).output
    assert "kiosk: scopes pose" in shown
    assert digest_of(key).hex() not in shown
    alone = run(app, ["keys", "new", "x"]).output
    assert '["x"]\nsha256 = "' in alone
    assert isinstance(run(app, ["keys", "new", "x y"]).exception, KeyFileError)
    assert len({new_key() for _ in range(100)}) == 100


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
async def test_every_front_end_holds_a_key_to_it(front: str, file: Path) -> None:
    written(
        file,
        table("kiosk"),
        table("slow", "slow", "crops_per_second = 1\nmax_streams = 1\n"),
        table("old", "old", "expires = 2020-01-01\n"),
        table("vip", "vip", 'max_priority = "high"\n'),
        table("admin", "admin", 'scopes = ["admin"]\n'),
    )
    async with serving(FakeEstimator(people=2), key_file=file, api_keys="plain") as service:
        for key in (KEY, "plain", "vip"):
            assert await ask(service, front, key) == 2
        assert await ask(service, front, "vip", Ask(priority="high")) == 2
        for key, wanted, code in (
            (None, Ask(), ErrorCode.UNAUTHENTICATED),
            ("wrong", Ask(), ErrorCode.UNAUTHENTICATED),
            ("old", Ask(), ErrorCode.UNAUTHENTICATED),
            ("admin", Ask(), ErrorCode.PERMISSION_DENIED),
            (KEY, Ask(priority="high"), ErrorCode.PERMISSION_DENIED),
        ):
            with pytest.raises(ServiceError) as refused:
                await ask(service, front, key, wanted)
            assert refused.value.code is code, (key, refused.value)
        assert await ask(service, front, "slow") == 2  # overdrawn by one from here on
        with pytest.raises(ServiceError, match="crops a second") as refused:
            await ask(service, front, "slow")
        assert refused.value.code is ErrorCode.OVERLOADED
        assert refused.value.retry_after_s
        text = service.runtime.metrics.exposition().decode()
        assert 'sdpose_key_requests_total{key="vip",outcome="ok"} 2.0' in text
        assert 'sdpose_shed_total{reason="key_limit"} 1.0' in text
        assert 'key="wrong"' not in text


async def test_requests_of_a_key_are_counted_over_both_front_ends(file: Path) -> None:
    written(file, table("kiosk", more="requests_per_second = 0.01\n"))
    async with serving(FakeEstimator(), key_file=file) as service:
        assert await ask(service, "rest", KEY) == 1
        for front in ("rest", "grpc"):
            with pytest.raises(ServiceError, match="requests a second"):
                await ask(service, front, KEY)


async def test_streams_of_a_key_are_counted(file: Path) -> None:
    written(file, table("kiosk", more="max_streams = 1\n"))
    async with serving(FakeEstimator(), key_file=file, api_key=KEY) as service:
        held = asyncio.Event()

        async def frames():  # type: ignore[no-untyped-def]
            yield PNG
            await held.wait()

        stream = service.grpc.stream(frames())
        await anext(stream)
        for front in ("websocket",):
            with pytest.raises(ServiceError, match="may have 1 streams"):
                await ask(service, front, KEY)
        held.set()
        async for _ in stream:
            pass
        assert await ask(service, "websocket", KEY) == 1


async def test_a_changed_file_counts_without_a_restart(file: Path) -> None:
    written(file, table("kiosk"))
    async with serving(FakeEstimator(), key_file=file) as service:
        assert await ask(service, "rest", KEY) == 1
        written(file, "[kiosk\n")
        await asyncio.sleep(0.6)
        assert await ask(service, "rest", KEY) == 1, "a damaged file changes nothing"
        written(file, "")
        await asyncio.sleep(0.6)
        with pytest.raises(ServiceError):
            await ask(service, "rest", None)
        replaced = written(file.with_name("new.toml"), table("other", "other"))
        replaced.rename(file)
        async with asyncio.timeout(5):
            while service.runtime.access.names != ["other"]:
                await asyncio.sleep(0.05)
        assert await ask(service, "rest", "other") == 1
        with pytest.raises(ServiceError, match="not known"):
            await ask(service, "rest", KEY)


async def test_a_stream_ends_when_its_key_is_taken_back(file: Path) -> None:
    written(file, table("kiosk"), table("other", "other"))
    async with serving(FakeEstimator(), key_file=file, api_key=KEY) as service:
        more = asyncio.Event()

        async def frames():  # type: ignore[no-untyped-def]
            yield PNG
            await more.wait()
            yield PNG

        stream = service.grpc.stream(frames())
        await anext(stream)
        written(file, table("other", "other"))
        async with asyncio.timeout(5):
            while service.runtime.access.names != ["other"]:
                await asyncio.sleep(0.05)
        more.set()
        with pytest.raises(ServiceError) as refused:
            await anext(stream)
        assert refused.value.code is ErrorCode.UNAUTHENTICATED


async def test_a_key_is_in_no_log_line(file: Path, quiet_logs: io.StringIO) -> None:
    told = io.StringIO()
    configure_logs("debug", "json", told)
    try:
        written(file, table("kiosk"))
        async with serving(FakeEstimator(), key_file=file, api_keys="plain-secret") as service:
            for front in FRONT_ENDS:
                await ask(service, front, KEY)
                for wrong in ("a-wrong-secret", None):
                    with pytest.raises(ServiceError) as refused:
                        await ask(service, front, wrong)
                    assert "secret" not in str(refused.value)
            async with httpx.AsyncClient() as http:
                await http.get(f"{service.url}/models", headers={"X-API-Key": KEY})
            await until_metrics_have(
                service, 'sdpose_key_requests_total{key="kiosk",outcome="ok"} 3.0'
            )
    finally:
        configure_logs("warning", "json", quiet_logs)
    lines = told.getvalue()
    assert KEY not in lines
    assert "secret" not in lines
    assert digest_of(KEY).hex() not in lines
    calls = [json.loads(line) for line in lines.splitlines() if '"event": "call"' in line]
    assert {call.get("key") for call in calls} >= {"kiosk", None}


async def test_the_service_does_not_start_with_a_wrong_file(file: Path) -> None:
    with pytest.raises(RuntimeError, match="holds no key"):
        async with serving(FakeEstimator(), key_file=written(file, "")):
            pass


async def test_health_is_open_where_keys_are_set(file: Path) -> None:
    async with (
        serving(FakeEstimator(), key_file=written(file, table("kiosk"))) as service,
        httpx.AsyncClient(base_url=service.url) as http,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        for path in ("/livez", "/readyz"):
            assert (await http.get(path)).status_code == 200
        assert (await http.get("/models")).status_code == 401
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_key_is_in_no_trace(file: Path) -> None:
    seen = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    settings = {"key_file": written(file, table("kiosk")), "api_keys": "plain-secret"}
    tracer = OpenTelemetryTracer(provider)
    async with serving(FakeEstimator(), tracer=tracer, **settings) as service:
        for front in FRONT_ENDS:
            await ask(service, front, KEY)
            with pytest.raises(ServiceError):
                await ask(service, front, "a-wrong-secret")
    spans = [span.to_json() for span in seen.get_finished_spans()]
    assert len(spans) > 10
    for text in spans:
        assert KEY not in text
        assert "secret" not in text
        assert digest_of(KEY).hex() not in text
