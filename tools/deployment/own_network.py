"""A network for a check alone: no ports of other programs, no way out, and one neighbour."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from tools.deployment.processes import run, wait_until
from tools.deployment.report import CheckFailed

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
HOST = "192.0.2.1"
"""Address of this host for its neighbour."""
_NEIGHBOUR = "192.0.2.2"
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


def enter_own_network() -> None:
    """From now on this thread and what it starts have loopback and nothing else; needs root."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK):
        raise CheckFailed(f"no separate network: {os.strerror(ctypes.get_errno())}")
    run(["ip", "link", "set", "lo", "up"])


class Neighbour:
    """Another host on the same wire as this one."""

    def __init__(self) -> None:
        holder = ["unshare", "--net", "sleep", "infinity"]
        self._holder = subprocess.Popen(holder)
        self._inside = ["nsenter", "--target", str(self._holder.pid), "--net"]
        ours, its = Path("/proc/self/ns/net"), Path(f"/proc/{self._holder.pid}/ns/net")
        wait_until("the neighbour's network", lambda: ours.readlink() != its.readlink(), 10, 0.05)
        pid = str(self._holder.pid)
        run(["ip", "link", "add", "wire", "type", "veth", "peer", "name", "eth0", "netns", pid])
        for prefix, device, address in (([], "wire", HOST), (self._inside, "eth0", _NEIGHBOUR)):
            run([*prefix, "ip", "address", "add", f"{address}/24", "dev", device])
            run([*prefix, "ip", "link", "set", device, "up"])

    def reaches(self, port: int) -> bool:
        """Whether it gets a TCP connection to that port of this host."""
        command = [*self._inside, sys.executable, "-c", _CONNECT, HOST, str(port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.wait()
