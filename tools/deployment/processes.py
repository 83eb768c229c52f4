"""Programs started for a check, each on loopback, with its output in a file, and ended after."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from tools.deployment.report import CheckFailed


def need_programs(hints: Mapping[str, str]) -> None:
    """Raises `CheckFailed` with how to get the programs that are not installed."""
    missing = {hint for name, hint in hints.items() if shutil.which(name) is None}
    if missing:
        raise CheckFailed(f"install first: {', '.join(sorted(missing))}")


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [taken.getsockname()[1] for taken in sockets]
    finally:
        for taken in sockets:
            taken.close()


def run(command: Sequence[str], **options: object) -> str:
    """Output of a program that must succeed; raises `CheckFailed` with its last lines."""
    done = subprocess.run(  # type: ignore[call-overload]
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise CheckFailed(f"`{' '.join(command)}` ended with status {done.returncode}:\n{tail}")
    return str(done.stdout)


def wait_until(
    what: str, holds: Callable[[], bool], timeout_s: float, pause_s: float = 0.5
) -> None:
    """Returns once `holds()`; raises `CheckFailed` after `timeout_s` seconds."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise CheckFailed(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(pause_s)


def answers(url: str) -> bool:
    """Whether a GET gives 200."""
    try:
        return httpx.get(url, timeout=5.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


class Program:
    """One running program; leaving the `with` ends it (and only it)."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self, url: str, timeout_s: float) -> None:
        """Until `url` answers 200; raises `CheckFailed` with the log when it ends before."""

        def ready() -> bool:
            if self._process.poll() is not None:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise CheckFailed(f"{self.name} ended unexpectedly:\n{tail}")
            return answers(url)

        wait_until(f"{self.name} answers at {url}", ready, timeout_s)

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def ended(self, timeout_s: float) -> int:
        """The exit status, waited for."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{self.name} did not end in {timeout_s:.0f} s") from None

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
