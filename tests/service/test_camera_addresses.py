"""Which addresses a caller may make the service connect to."""

from __future__ import annotations

import socket

import pytest

from sdpose_core.io.problems import MediaError
from service.cameras.addresses import AddressRules, check_resolved
from service.errors import ServiceError


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        ("rtsp://10.0.0.*/*", "rtsp://10.0.0.5/stream1"),
        ("rtsp://10.0.0.*/*", "rtsp://10.0.0.5:554/a/b?c=d"),
        ("rtsp://10.0.0.*", "rtsp://user:pa%40ss@10.0.0.5/stream1"),
        ("rtsp://10.0.0.5:*/live", "rtsp://10.0.0.5:8554/live"),
        ("http://cam-*.example.com/*.mjpg", "HTTP://Cam-7.example.com/x/y.mjpg"),
        ("https://*", "https://anything.example.com/"),
        ("rtsp://[fd00::5]/*", "rtsp://[fd00::5]/live"),
        ("/dev/video*", "/dev/video12"),
        ("http://127.0.0.1:8080/*", "http://127.0.0.1:8080/live"),
    ],
)
def test_allowed(pattern: str, address: str) -> None:
    AddressRules([pattern]).check(address)


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        ("rtsp://10.0.0.*/*", "rtsp://10.0.1.5/stream1"),
        ("rtsp://10.0.0.*/*", "rtsp://10.0.0.5.example.com/stream1"),
        ("rtsp://10.0.0.*/*", "rtsp://10.0.0.5:8554/stream1"),
        ("rtsp://10.0.0.*/*", "http://10.0.0.5/stream1"),
        ("rtsp://10.0.0.*/*", "rtsp://10.0.0.5@evil.example.com/"),
        ("rtsp://10.0.0.*/*", "rtsp://evil.example.com/@10.0.0.5/"),
        ("rtsp://10.0.0.*/*", "rtsp://evil.example.com\\@10.0.0.5/"),
        ("rtsp://10.0.0.*/*", "rtsp://evil.example.com#@10.0.0.5/"),
        ("rtsp://10.0.0.*/*", "rtsp://10.0.0.5/a b"),
        ("rtsp://10.0.0.*/*", "rtsp://10.0.0.5/a\r\nHost: b"),
        ("rtsp://10.0.0.5/live/*", "rtsp://10.0.0.5/live/../admin"),
        ("rtsp://10.0.0.5/live/*", "rtsp://10.0.0.5/live/%2e%2e/admin"),
        ("rtsp://[fd00::5]/*", "rtsp://f/live"),
        ("https://*", "https://169.254.169.254/latest/meta-data"),
        ("http://*", "http://[fe80::1]/"),
        ("http://*", "http://[::ffff:169.254.169.254]/"),
        ("http://*", "http://100.100.100.200/"),
        ("http://*", "http://0.0.0.0/"),
        ("http://*", "http://224.0.0.1/"),
        ("http://*", "http://*/"),
        ("http://*:*", "http://host:*/"),
        ("/dev/video*", "/dev/video0/../mem"),
        ("/dev/video*", "/dev/videoX"),
        ("/dev/video*", "file:///dev/video0"),
        ("rtsp://10.0.0.*/*", "concat:rtsp://10.0.0.5/|/etc/passwd"),
    ],
)
def test_refused(pattern: str, address: str) -> None:
    with pytest.raises(ServiceError) as refused:
        AddressRules([pattern]).check(address)
    assert refused.value.field == "address"


def test_nothing_is_allowed_unless_named() -> None:
    with pytest.raises(ServiceError, match="SDPOSE_CAMERA_ADDRESSES"):
        AddressRules([]).check("rtsp://10.0.0.5/")


@pytest.mark.parametrize(
    "pattern", ["10.0.0.*", "ftp://10.0.0.5/", "/dev/*", "rtsp://", "rtsp://10.0.0.?/", ""]
)
def test_patterns_that_match_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="no pattern of camera addresses"):
        AddressRules([pattern])


@pytest.mark.parametrize("found", ["169.254.169.254", "fe80::1%eth0", "0.0.0.0"])
def test_a_name_that_leads_to_a_refused_host(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", ("10.0.0.5", 0)), (0, 0, 0, "", (found, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with pytest.raises(MediaError):
        check_resolved("rtsp://camera.example.com/live")


def test_an_unknown_name() -> None:
    with pytest.raises(MediaError, match="not known"):
        check_resolved("rtsp://no-such-host.invalid/live")
    check_resolved("/dev/video0")
    check_resolved("rtsp://127.0.0.1/live")
