"""Encrypted on both ports, with and without certificates of the callers; renewed while it runs."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from sdpose_client import (
    AsyncGrpcPoseClient,
    AsyncRestPoseClient,
    AsyncWebSocketPoseClient,
    ErrorCode,
    GrpcPoseClient,
    ServiceError,
)
from service.process import StartError
from service.settings import SettingsError, load_settings
from service.tls import ClientTls, TlsError, TlsFiles, WatchedFiles
from tests.commands import run_command
from tests.fakes import PNG, FakeEstimator
from tests.service.certificates import Authority, encrypted
from tests.service.conftest import ONCE, Service, rejected, serving, wait_until
from tests.service.processes import ROOT

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("ca"))


async def people(
    service: Service, authority: Authority, shown: tuple[Path, Path] | None = None
) -> list[int]:
    """Those that REST, gRPC and a WebSocket find."""
    context = authority.trusting(shown)
    found = []
    async with AsyncRestPoseClient(service.url, tls=context, retry=ONCE) as rest:
        found.append(len((await rest.estimate(PNG)).people))
    async with authority.rpc_client(service.target, shown) as rpc:
        found.append(len((await rpc.estimate(PNG)).people))
    websocket = AsyncWebSocketPoseClient(service.url, tls=context)
    async for answer in websocket.stream([PNG]):
        assert not isinstance(answer.outcome, ServiceError)
        found.append(len(answer.outcome.people))
    return found


async def test_all_ways_in_are_encrypted(authority: Authority) -> None:
    async with encrypted(authority.sign("server")) as service:
        assert service.addresses.page.startswith("https://")
        probe = [sys.executable, ROOT / "deploy" / "healthcheck.py"]
        port, certificate = str(service.addresses.http_port), "any"
        given = {"SDPOSE_HTTP_PORT": port, "SDPOSE_TLS_CERTIFICATE": certificate}
        assert (await asyncio.to_thread(subprocess.run, probe, env=given)).returncode == 0
        assert await people(service, authority) == [1, 1, 1]
        async with httpx.AsyncClient() as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(f"http://localhost:{service.addresses.http_port}/livez")
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await plain.get(f"{service.url}/livez")
        async with AsyncGrpcPoseClient(service.target, retry=ONCE) as rpc:
            with pytest.raises(ServiceError):
                await rpc.estimate(PNG, timeout_s=5)


async def test_a_stream_of_an_https_address_trusts_what_the_system_does(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with encrypted(authority.sign("server")) as service:
        with pytest.raises(ServiceError, match="is not trusted"):
            await anext(AsyncWebSocketPoseClient(service.url).stream([PNG]))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        answers = [one async for one in AsyncWebSocketPoseClient(service.url).stream([PNG])]
        assert len(answers) == 1


async def test_mutual_tls_wants_a_certificate_on_every_way(authority: Authority) -> None:
    client = authority.sign("client")
    stranger = Authority.made(authority.folder / "other").sign("stranger")
    async with encrypted(
        authority.sign("server"), tls_client_ca=authority.ca, metrics_port=0
    ) as service:
        assert await people(service, authority, client) == [1, 1, 1]
        for shown in (None, stranger):
            async with httpx.AsyncClient(verify=authority.trusting(shown)) as http:
                with pytest.raises(httpx.TransportError):
                    await http.get(f"{service.url}/livez")
            async with authority.rpc_client(service.target, shown) as rpc:
                with pytest.raises(ServiceError):
                    await rpc.estimate(PNG, timeout_s=5)
        async with httpx.AsyncClient() as probe:  # for orchestrators, which show none
            url = f"http://localhost:{service.addresses.metrics_port}"
            assert (await probe.get(f"{url}/readyz")).status_code == 200


async def test_a_renewed_certificate_counts_without_a_restart(
    authority: Authority, quiet_logs: io.StringIO
) -> None:
    files = authority.sign("renewed")
    async with encrypted(files) as service:
        assert await people(service, authority) == [1, 1, 1]
        before = len(quiet_logs.getvalue())
        files[0].write_text("half a file")
        await wait_until(lambda: "certificate not renewed" in quiet_logs.getvalue()[before:])
        assert await people(service, authority) == [1, 1, 1], "a damaged one changes nothing"
        other = Authority.made(authority.folder / "new")
        for old, new in zip(files, other.sign("renewed"), strict=True):
            new.rename(old)
        while True:
            with suppress(ServiceError):  # until it is looked at
                assert await people(service, other) == [1, 1, 1]
                break
        with pytest.raises(ServiceError):
            await people(service, authority)


def test_what_is_wrong_is_one_sentence(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.sign("server")
    other_key = authority.sign("other")[1]
    none, text = tmp_path / "none.pem", tmp_path / "text.pem"
    text.write_text("no PEM")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", key, "-out", locked],
        check=True,
        capture_output=True,
    )
    for files, told in (
        (TlsFiles(certificate, other_key), "key values mismatch"),
        (TlsFiles(none, key), "No such file"),
        (TlsFiles(text, key), "not a certificate and its key"),
        (TlsFiles(certificate, locked), "there is no way to enter its password"),
        (TlsFiles(certificate, key, none), "No such file"),
        (TlsFiles(certificate, key, text), "no certificates"),
    ):
        with pytest.raises(TlsError, match=told):
            files.read()
    for given, told in (
        ({"tls_certificate": certificate}, "go together"),
        ({"tls_key": key}, "go together"),
        ({"tls_client_ca": certificate}, "needs SDPOSE_TLS_CERTIFICATE"),
    ):
        with pytest.raises(SettingsError, match=told):
            load_settings(**given)


async def test_the_service_does_not_start_with_a_wrong_certificate(tmp_path: Path) -> None:
    missing = tmp_path / "none.pem"
    with pytest.raises(StartError, match=r"none\.pem.*SDPOSE_TLS_CERTIFICATE"):
        async with encrypted((missing, missing)):
            pass


def test_replaced_files_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a"
    watched = WatchedFiles(file)
    assert not watched.changed()
    file.write_text("1")
    assert watched.changed()
    assert not watched.changed()
    other = tmp_path / "b"
    other.write_text("2")
    other.rename(file)
    assert watched.changed()
    file.unlink()
    assert watched.changed()


async def test_metrics_on_a_port_of_their_own() -> None:
    async with serving(FakeEstimator(), metrics_port=0, api_keys="secret") as service:
        operator = f"http://127.0.0.1:{service.addresses.metrics_port}"
        assert (await service.http.get(f"{operator}/readyz")).status_code == 200
        assert "sdpose_ready 1.0" in (await service.http.get(f"{operator}/metrics")).text
        assert (await service.http.get(f"{operator}/livez")).json() == {"status": "alive"}
        assert (await service.http.get("/metrics")).status_code == 404
        assert (await service.http.get("/livez")).status_code == 200
        for path in ("/pose", "/models", "/docs", "/admin/reload", "/"):
            assert (await service.http.post(f"{operator}{path}")).status_code == 404
    assert service.running.result().status == 0


async def test_the_clients_say_what_they_trust(authority: Authority) -> None:
    """Both kinds of gRPC client, for images and streams."""
    ca = authority.ca.read_bytes()

    def blocking(target: str, **options: Any) -> list[object]:
        with GrpcPoseClient(target, retry=ONCE, **options) as client:
            return [client.estimate(PNG, timeout_s=20), *client.stream([PNG])]

    async def on_the_loop(target: str, **options: Any) -> list[object]:
        async with AsyncGrpcPoseClient(target, retry=ONCE, **options) as client:
            whole = await client.estimate(PNG, timeout_s=20)
            return [whole, *[answer async for answer in client.stream([PNG])]]

    ways: list[Callable[..., Any]] = [
        lambda *given, **options: asyncio.to_thread(blocking, *given, **options),
        on_the_loop,
    ]
    async with encrypted(authority.sign("server")) as service:
        for way in ways:
            assert len(await way(service.target, tls=True, root_certificates=ca)) == 2
            assert len(await way(service.target, root_certificates=ca)) == 2
            with rejected(ErrorCode.INVALID_ARGUMENT, match="is not trusted", field="tls"):
                await way(service.target, tls=True)
            with rejected(ErrorCode.UNAVAILABLE, match="may expect TLS"):
                await way(service.target)


async def test_commands_reach_an_encrypted_service(authority: Authority, tmp_path: Path) -> None:
    """Mutual TLS, with a certificate for another name than that of the address."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(3):
        (frames / f"{index}.png").write_bytes(PNG)
    shown, key = authority.sign("client")
    mine = {"--tls-ca": authority.ca, "--tls-certificate": shown, "--tls-key": key}
    name = {"--tls-server-name": "pose.example"}
    text = tmp_path / "text.pem"
    text.write_text("no PEM")

    def streamed(*options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sdpose_core", "stream", frames, "--json", "-", *options]
        environment = {**os.environ, "COLUMNS": "200"}
        return run_command(*command, env=environment)

    def flat(options: dict[str, Any]) -> list[object]:
        return [each for pair in options.items() for each in pair]

    files = authority.sign("named", "DNS:pose.example")
    async with encrypted(files, tls_client_ca=authority.ca) as service:
        server = ["--server", service.target, "--attempts", 1]
        done = await asyncio.to_thread(streamed, *server, *flat({**mine, **name}))
        assert (done.returncode, done.stdout.count('"nose"')) == (0, 3), done.stderr
        for missing in ({**mine}, {**name, "--tls-ca": authority.ca}, {"--tls-server-name": "x"}):
            done = await asyncio.to_thread(streamed, *server, *flat(missing))
            assert (done.returncode, done.stdout) == (1, ""), missing
            assert "Traceback" not in done.stderr
        for wrong, told in (
            ({"--tls-ca": text}, "text.pem: no certificates"),
            ({"--tls-key": key}, "go together"),
            ({**mine, "--tls-key": authority.sign("other")[1]}, "key values mismatch"),
            ({"--server": "https://localhost:1"}, "without http"),
        ):
            done = await asyncio.to_thread(streamed, *server, *flat(wrong))
            assert (done.returncode, done.stdout) == (2, ""), done.stderr
            assert told in done.stderr
        done = await asyncio.to_thread(streamed, "--tls")
        assert done.returncode == 2
        assert "--tls needs --server" in done.stderr
    own = ClientTls(authority.ca, shown, key).context()
    async with (
        encrypted(authority.sign("server"), tls_client_ca=authority.ca) as service,
        AsyncRestPoseClient(service.url, tls=own, retry=ONCE) as rest,
    ):
        assert len((await rest.estimate(PNG)).people) == 1
