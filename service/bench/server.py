"""A service started for a measurement, in a separate process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

KEYS: Final = ("SDPOSE_API_KEYS", "SDPOSE_KEY_FILE")
"""Variables that a measured service does not get: the load sends no key."""
_START_S = 180.0
_SERVE = "from service.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class Server:
    """A running service: its address, and its process if that is on this machine."""

    host: str
    http_port: int
    grpc_port: int
    pid: int | None

    def memory_mib(self) -> float:
        """Resident memory of the process."""
        return int(self._status("VmRSS")) / 1024

    def threads(self) -> int:
        """Threads of the process."""
        return int(self._status("Threads"))

    def _status(self, name: str) -> str:
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return line.split()[1]
        raise RuntimeError(f"process {self.pid} reports no {name}")

    def open_files(self) -> int:
        """Open file handles of the process."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextmanager
def started(settings: Mapping[str, str]) -> Iterator[Server]:
    """Starts `sdpose serve` with these settings on free ports; stops it at the end."""
    http_port, grpc_port = free_port(), free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name not in KEYS},
        **settings,
        "SDPOSE_HOST": "127.0.0.1",
        "SDPOSE_HTTP_PORT": str(http_port),
        "SDPOSE_GRPC_PORT": str(grpc_port),
        "SDPOSE_LOG_LEVEL": "warning",
    }
    with subprocess.Popen([sys.executable, "-c", _SERVE, "serve"], env=environment) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{http_port}/readyz", process)
            yield Server("127.0.0.1", http_port, grpc_port, process.pid)
        finally:
            process.terminate()


def wait_until_ready(url: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Asks until it answers 200; raises RuntimeError if that lasts, or the process has ended."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the service ended with status {process.returncode}")
        try:
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.2)
    raise RuntimeError(f"the service is not ready after {_START_S:.0f} s")


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
