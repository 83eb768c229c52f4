"""The service over a fake as a process of its own; its ports and its memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpose_client import RestPoseClient, Retry

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def a_process(
    http_port: int, grpc_port: int, *, stderr: int | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The service over a fake on given ports, as soon as it is ready."""
    given = {
        **os.environ,
        "SDPOSE_HTTP_PORT": str(http_port),
        "SDPOSE_GRPC_PORT": str(grpc_port),
        **environment,
    }
    command = [sys.executable, "-m", "tests.fake_service"]
    stderr = subprocess.DEVNULL if stderr is None else stderr
    with subprocess.Popen(command, cwd=ROOT, env=given, stderr=stderr) as running:
        try:
            with RestPoseClient(f"http://127.0.0.1:{http_port}", retry=Retry(attempts=1)) as probe:
                until(probe.ready, running)
            yield running
        finally:
            running.kill()


@contextmanager
def process(
    slow_s: float = 0.0, grpc_port: int | None = None, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], RestPoseClient]]:
    """The same on any ports, with a client."""
    port = free_port()
    environment["SLOW_S"] = str(slow_s)
    with (
        a_process(port, free_port() if grpc_port is None else grpc_port, **environment) as one,
        RestPoseClient(f"http://127.0.0.1:{port}", retry=Retry(attempts=1)) as client,
    ):
        yield one, client


def metrics_of(client: RestPoseClient) -> list[str]:
    """The lines of the metrics page."""
    return client._http.get("/metrics").text.splitlines()


def until(ready: Callable[[], bool], running: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 600
    while not ready():
        assert running.poll() is None, "the service ended"
        assert time.monotonic() < end, "the service does not become ready"
        time.sleep(0.05)


def resident(pid: int) -> int:
    """Memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
