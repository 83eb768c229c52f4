"""The Dockerfile and the package lists, as far as they can be judged without building."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.deployment.processes import free_ports
from tools.lock import CPU_LOCK, GPU_LOCK, ROOT, dependencies, fingerprint, is_cuda, pins

_BIN = Path(sys.executable).parent
_DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [_BIN / "hadolint", "--failure-threshold", "style", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_dockerfile_copies_is_let_through_to_the_builder() -> None:
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {
        source.rstrip("/")
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", _DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    }
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_the_last_target_is_the_gpu_one_and_nobody_is_root() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", _DOCKERFILE, re.MULTILINE)
    assert stages[-2:] == ["cpu", "gpu"]
    assert re.findall(r"^USER (\S+)$", _DOCKERFILE, re.MULTILINE) == ["10001:10001"]


@pytest.mark.parametrize("lock", [CPU_LOCK, GPU_LOCK], ids=["cpu", "gpu"])
class TestLock:
    def test_is_current(self, lock: Path) -> None:
        assert f"# dependencies: {fingerprint(dependencies())}\n" in lock.read_text(), (
            "pyproject.toml asks for something else now: run `make lock`"
        )

    def test_pins_every_dependency_within_its_bounds(self, lock: Path) -> None:
        pinned = {canonicalize_name(name): version for name, version in pins(lock).items()}
        for line in dependencies():
            wanted = Requirement(line)
            version = pinned.get(canonicalize_name(wanted.name))
            assert version is not None, f"{wanted.name} is not pinned"
            assert wanted.specifier.contains(version), f"{wanted.name} {version}"

    def test_holds_pins_only(self, lock: Path) -> None:
        lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
        # No index, no address, no build of one index alone such as 2.13.0+cpu.
        assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_both_images_run_the_same_versions() -> None:
    cpu, gpu = pins(CPU_LOCK), pins(GPU_LOCK)
    assert cpu.items() <= gpu.items()
    extra = gpu.keys() - cpu.keys()
    assert extra
    assert all(map(is_cuda, extra))
    assert not any(map(is_cuda, cpu))


class _Ready(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def ready_port() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Ready)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_health_check_tells_ready_from_not_ready(
    ready_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_from_file_location("healthcheck", ROOT / "deploy" / "healthcheck.py")
    assert spec is not None
    assert spec.loader is not None
    healthcheck = module_from_spec(spec)
    spec.loader.exec_module(healthcheck)
    assert healthcheck.healthy(ready_port)
    monkeypatch.setattr(_Ready, "status", 503)
    assert not healthcheck.healthy(ready_port)
    assert not healthcheck.healthy(free_ports(1)[0])
