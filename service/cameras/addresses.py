"""Rules for the camera addresses that a caller may make this process connect to."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from sdpose_core.io.addresses import shown
from sdpose_core.io.problems import MediaError
from service.cameras.relay import relayed
from service.errors import invalid_argument

_PORTS: Final = {"rtsp": "554", "rtsps": "322", "http": "80", "https": "443"}
_DEVICE: Final = re.compile(r"/dev/video\d{1,3}")
# Strict, so that FFmpeg cannot read another host out of an address than these rules do.
_ADDRESS: Final = re.compile(
    r"(?P<scheme>[A-Za-z]+)://"
    r"(?P<user>[A-Za-z0-9._~!$&'()*+,;=%:-]*@)?"
    r"(?P<host>[A-Za-z0-9.*-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>\d{1,5}|\*))?"
    r"(?P<path>/[!-~]*)?"
)
_METADATA: Final = {
    ipaddress.ip_address(each) for each in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200")
}
"""Addresses at which clouds give their machines credentials."""

_CHOICES: Final = frozenset(("udp", "multicast", "http", "https", "filter_src"))
"""Options that FFmpeg reads from the query of an RTSP address: transports to other addresses."""


@dataclass(frozen=True, slots=True)
class _Parts:
    scheme: str
    user: str
    host: str
    port: str
    path: str


class AddressRules:
    """Patterns of the addresses that callers may name.

    Such as `rtsp://10.0.0.*/*` or `/dev/video*`. In a host `*` stands for what is between two dots,
    alone for any host; in a path for anything. A pattern without a port means that of its scheme,
    `:*` any; without a path, any. User and password are no part of it.

    Raises `ValueError` for a pattern that can match nothing.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._devices: list[str] = []
        self._urls: list[_Parts] = []
        for pattern in patterns:
            parts = _parts(pattern)
            if parts is not None:
                self._urls.append(parts)
            elif pattern.startswith("/dev/video"):
                self._devices.append(pattern)
            else:
                raise ValueError(
                    f"{shown(pattern)!r} is no pattern of camera addresses, such as "
                    "rtsp://10.0.0.*/* or /dev/video*"
                )

    def check(self, address: str) -> None:
        """Raises `ServiceError` invalid_argument unless a pattern matches."""
        if not self._urls and not self._devices:
            raise invalid_argument(
                "address", "this service takes no cameras; SDPOSE_CAMERA_ADDRESSES allows them"
            )
        if not self._allowed(address):
            raise invalid_argument(
                "address", "no pattern of SDPOSE_CAMERA_ADDRESSES allows this address"
            )
        parts = _parts(address)
        if parts is not None and (reason := _rejected_ip(parts.host.strip("[]"))):
            raise invalid_argument("address", reason)
        if parts is not None and parts.scheme.startswith("rtsp"):
            query = parts.path.partition("?")[2]
            if named := _CHOICES & {
                each.partition("=")[0].lower() for each in re.split("[?&]", query)
            }:
                raise invalid_argument("address", f"{min(named)} is not chosen here; leave it out")

    def _allowed(self, address: str) -> bool:
        if _DEVICE.fullmatch(address):
            return any(_glob(address, pattern, ".*") for pattern in self._devices)
        parts = _parts(address)
        if parts is None or "*" in parts.host or parts.port == "*":
            return False
        if ".." in unquote(parts.path).split("?")[0].split("/"):
            return False
        return any(_matches(parts, pattern) for pattern in self._urls)


@contextmanager
def safe_route(address: str) -> Iterator[str]:
    """The address that FFmpeg opens in place of a checked one, while the block lasts.

    For RTSP that is a relay to the host that the name resolves to now, since FFmpeg follows every
    redirect. Raises `MediaError` if that host is never allowed, or if the camera redirects.
    """
    parts = _parts(address)
    if parts is None:
        yield address
        return
    found = _resolved(parts)
    if not parts.scheme.startswith("rtsp"):
        yield address
        return
    with relayed(found, encrypted=parts.scheme == "rtsps") as port:
        yield f"rtsp://{parts.user}127.0.0.1:{port}{parts.path}"


def _resolved(parts: _Parts) -> list[tuple[Any, ...]]:
    """Socket addresses of the host, all of them allowed. Raises `MediaError`."""
    try:
        port = int(parts.port)
        found = socket.getaddrinfo(parts.host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError:
        raise MediaError("the host is not known") from None
    for *_, where in found:
        if reason := _rejected_ip(str(where[0])):
            raise MediaError(reason)
    return [where for *_, where in found]


def _parts(address: str) -> _Parts | None:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return None
    scheme = found["scheme"].lower()
    if scheme not in _PORTS:
        return None
    return _Parts(
        scheme,
        found["user"] or "",
        found["host"].lower(),
        found["port"] or _PORTS[scheme],
        found["path"] or "/",
    )


def _matches(parts: _Parts, pattern: _Parts) -> bool:
    return (
        parts.scheme == pattern.scheme
        and pattern.port in ("*", parts.port)
        and _host_matches(parts.host, pattern.host)
        and (pattern.path == "/" or _glob(parts.path, pattern.path, ".*"))
    )


def _host_matches(host: str, pattern: str) -> bool:
    # Not across a dot: 10.0.0.* must not match 10.0.0.5.example.com.
    return pattern == "*" or _glob(host, pattern, r"[^.]*")


def _glob(text: str, pattern: str, star: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", star), text) is not None


def _rejected_ip(host: str) -> str | None:
    """Why this address, if it is one, is never connected to."""
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return None
    address = getattr(address, "ipv4_mapped", None) or address
    if address in _METADATA or address.is_link_local:
        return "link-local and metadata addresses are never connected to"
    if address.is_multicast or address.is_unspecified:
        return "multicast and unspecified addresses are no cameras"
    return None
