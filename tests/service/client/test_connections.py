"""What a client cannot reach, or may not: one typed error with one sentence on every way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sdpose_client import ErrorCode, GrpcPoseClient, Reconnect, ServiceError, WebSocketPoseClient
from tests.fakes import PNG, FakeEstimator
from tests.service.certificates import Authority, encrypted
from tests.service.client.ways import WAYS, address_of, answers, trusting
from tests.service.conftest import Service, rejected, serving
from tools.deployment.processes import free_ports

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("way", WAYS)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("ca"))


async def test_no_server(way: str) -> None:
    host = f"127.0.0.1:{free_ports(1)[0]}"
    address = host if way == "grpc" else f"http://{host}"
    with rejected(
        ErrorCode.UNAVAILABLE, match=rf"^\w*:?/*{host}\S* cannot be reached: Connection refused$"
    ):
        await answers(way, address)


async def test_no_host_of_this_name(way: str) -> None:
    host = "no-such-host.invalid:8000"
    with rejected(ErrorCode.UNAVAILABLE, match="cannot be reached: .*(not known|not found|resol)"):
        await answers(way, host if way == "grpc" else f"http://{host}")


@pytest.mark.parametrize(
    ("web", "target"),
    [
        ("localhost:8000", "http://localhost:8001"),
        ("http://localhost:800000", "localhost:800000"),
        ("http://", "grpc://localhost:8001"),
    ],
)
async def test_no_address(way: str, web: str, target: str) -> None:
    field = {"rest": "base_url", "grpc": "target", "websocket": "url"}[way]
    with rejected(ErrorCode.INVALID_ARGUMENT, match="such as .*localhost:800", field=field):
        await answers(way, target if way == "grpc" else web)


async def test_the_port_of_another_protocol(way: str, service: Service) -> None:
    other = service.url.removeprefix("http://") if way == "grpc" else f"http://{service.target}"
    with rejected(ErrorCode.UNAVAILABLE, match="cannot be reached"):
        await answers(way, other)


async def test_a_server_that_never_answers(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # connected by the system alone
        host = f"127.0.0.1:{server.getsockname()[1]}"
        sentence = rf"^no answer of \w*:?/*{host}\S* in time$"
        with rejected(ErrorCode.DEADLINE_EXCEEDED, match=sentence):
            await answers(way, host if way == "grpc" else f"http://{host}", timeout_s=0.3)


async def test_a_key(way: str) -> None:
    async with serving(FakeEstimator(), api_keys="secret") as service:
        address = address_of(service, way)
        assert len(await answers(way, address, api_key="secret")) == 2
        for wrong in ({}, {"api_key": "guessed"}):
            with rejected(ErrorCode.UNAUTHENTICATED, match="key"):
                await answers(way, address, **wrong)
        for odd in ("sécret", "secret\n"):
            with rejected(ErrorCode.INVALID_ARGUMENT, field="api_key") as raised:
                await answers(way, address, api_key=odd)
            assert odd.strip() not in raised.value.message


async def test_tls_to_a_service_without(way: str, service: Service) -> None:
    address = address_of(service, way).replace("http://", "https://")
    options: dict[str, Any] = {"tls": True} if way == "grpc" else {}
    with rejected(ErrorCode.INVALID_ARGUMENT, match="does not speak TLS$", field="tls"):
        await answers(way, address, **options)


@pytest.fixture
async def protected(authority: Authority) -> AsyncIterator[Service]:
    async with encrypted(authority.sign("server")) as service:
        yield service


async def test_plain_to_a_service_with_tls(way: str, protected: Service) -> None:
    address = address_of(protected, way).replace("https://", "http://")
    with rejected(ErrorCode.UNAVAILABLE, match="may expect TLS$"):
        await answers(way, address)


async def test_a_certificate_that_is_not_trusted(
    way: str, protected: Service, authority: Authority
) -> None:
    other = Authority.made(authority.folder / "other")
    options = trusting(way, other.ca.read_bytes(), other.trusting())
    with rejected(ErrorCode.INVALID_ARGUMENT, match="is not trusted", field="tls"):
        await answers(way, address_of(protected, way), **options)
    options = trusting(way, authority.ca.read_bytes(), authority.trusting())
    assert len(await answers(way, address_of(protected, way), **options)) == 2


async def test_a_certificate_for_another_name(way: str, authority: Authority) -> None:
    options = trusting(way, authority.ca.read_bytes(), authority.trusting())
    async with encrypted(authority.sign("named", "DNS:pose.example")) as service:
        with rejected(ErrorCode.INVALID_ARGUMENT, match="is for another name", field="tls"):
            await answers(way, address_of(service, way), **options)


async def test_no_certificate_where_one_is_needed(way: str, authority: Authority) -> None:
    options = trusting(way, authority.ca.read_bytes(), authority.trusting())
    async with encrypted(authority.sign("server"), tls_client_ca=authority.ca) as service:
        with rejected(ErrorCode.UNAVAILABLE, match="may expect a client certificate$"):
            await answers(way, address_of(service, way), **options)


async def test_following_ends_at_what_no_try_mends(
    way: str, protected: Service, authority: Authority, tmp_path: Path
) -> None:
    """With no bound on the tries, a wrong certificate would else be tried for ever."""
    if way == "rest":
        pytest.skip("has no streams")
    other = Authority.made(tmp_path / "other")
    kind = GrpcPoseClient if way == "grpc" else WebSocketPoseClient
    options = trusting(way, other.ca.read_bytes(), other.trusting())
    heard: list[str] = []

    def follow() -> None:
        with kind(address_of(protected, way), **options) as client:
            list(client.follow([PNG], reconnect=Reconnect(tell=heard.append)))

    with pytest.raises(ServiceError, match="is not trusted"):
        await asyncio.to_thread(follow)
    assert heard == []
