"""Which addresses a caller may make the service connect to."""

from __future__ import annotations

import io
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from sdpose_core.io.live import LiveSource
from sdpose_core.io.problems import MediaError
from service.cameras.addresses import AddressRules, safe_route
from service.errors import ServiceError
from tests.videos import encoded_video


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
        ("rtsp://10.0.0.*/*", "rtsp://10.0.0.5/live?a=b&udp"),
        ("rtsp://10.0.0.*/*", "rtsp://10.0.0.5/live?HTTP"),
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


def test_a_wrong_pattern_does_not_show_its_password() -> None:
    with pytest.raises(ValueError, match=r"'ftp://10.0.0.5/' is no pattern"):
        AddressRules(["ftp://me:word@10.0.0.5/"])


@pytest.mark.parametrize("found", ["169.254.169.254", "fe80::1%eth0", "0.0.0.0"])
def test_a_name_that_leads_to_a_refused_host(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", ("10.0.0.5", 0)), (0, 0, 0, "", (found, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    for scheme in ("rtsp", "http"):
        with (
            pytest.raises(MediaError, match=r"never connected|unspecified"),
            safe_route(f"{scheme}://camera.example.com/live"),
        ):
            pass


def test_an_unknown_name() -> None:
    with (
        pytest.raises(MediaError, match="not known"),
        safe_route("rtsp://no-such-host.invalid/live"),
    ):
        pass
    for address in ("/dev/video0", "http://127.0.0.1:9/live"):
        with safe_route(address) as opened:
            assert opened == address


def described(request: bytes) -> bytes:
    """What a camera answers before pictures come."""
    number = b"CSeq: %d\r\n" % int(request.partition(b"CSeq: ")[2].split(b"\r\n")[0])
    more, body = b"Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", b""
    if request.startswith(b"OPTIONS"):
        more = b"Public: DESCRIBE, SETUP, PLAY\r\n"
    elif request.startswith(b"DESCRIBE"):
        body = b"v=0\r\no=- 0 0 IN IP4 0\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:t"
        more = b"Content-Type: application/sdp\r\nContent-Length: %d\r\n" % len(body)
    return b"RTSP/1.0 200 OK\r\n" + number + more + b"\r\n" + body


def pictures() -> bytes:
    """A second of video in an MPEG transport stream, as RTP packets between the answers."""
    file = io.BytesIO()
    images = [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(25)]
    encoded_video(file, images, codec="mpeg2video", rate=25, format="mpegts")
    data, packets = file.getvalue(), b""
    for number, start in enumerate(range(0, len(data), 1316)):
        packet = struct.pack(">BBHII", 0x80, 33, number, number, 7) + data[start : start + 1316]
        packets += struct.pack(">cBH", b"$", 0, len(packet)) + packet
    return packets


@contextmanager
def rtsp(answer: Callable[[bytes], bytes], chunk: int = 10_000) -> Iterator[str]:
    """A camera that answers so, `chunk` bytes at a time, and hangs up when its reader does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            line, _ = listener.accept()
            with line:
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while request := line.recv(4096):
                    said = answer(request)
                    for start in range(0, len(said), chunk):
                        line.sendall(said[start : start + chunk])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"rtsp://me:word@127.0.0.1:{listener.getsockname()[1]}/live"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("status", [b"302 Moved", b"+301 Moved", b"0305 Use Proxy", b"300"])
@pytest.mark.parametrize("method", [b"OPTIONS", b"DESCRIBE", b"SETUP"])
def test_where_a_camera_leads_is_not_followed(method: bytes, status: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        location = b"Location: rtsp://127.0.0.1:%d/\r\n" % elsewhere.getsockname()[1]

        def answer(request: bytes) -> bytes:
            said = described(request)
            if not request.startswith(method):
                return said
            return said.replace(b"200 OK\r\n", status + b"\r\n" + location)

        with rtsp(answer, 3) as address:
            source = LiveSource(address, lambda _: None, timeout_s=60, attempts=1, route=safe_route)
            with source as live, pytest.raises(MediaError, match="leads to another address"):
                list(live.frames())
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


@pytest.mark.parametrize("chunk", [1, 10_000])
def test_pictures_come_through_the_line_however_they_are_cut(chunk: int) -> None:
    def answer(request: bytes) -> bytes:
        return described(request) + (pictures() if request.startswith(b"PLAY") else b"")

    with rtsp(answer, chunk) as address:
        source = LiveSource(address, lambda _: None, timeout_s=60, attempts=1, route=safe_route)
        with source as live:
            frame = next(live.frames())
    assert frame.image.shape == (48, 64, 3)
