"""Cameras and addresses that answer, break off, hang or are not there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from sdpose_core.io.live import LiveSource, is_live, shown
from sdpose_core.io.sources import MediaError


def _part(number: int) -> bytes:
    image = np.full((48, 64, 3), number * 10 % 250, np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data + b"\r\n"


@contextmanager
def camera(frames: int, *, silent: bool = False, pause_s: float = 0.01) -> Iterator[str]:
    """An MJPEG camera over HTTP that hangs up after so many frames; `silent` never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                line, _ = listener.accept()
            except TimeoutError:
                continue
            with line:
                if silent:
                    over.wait(10)
                    continue
                try:
                    line.recv(4096)
                    kind = b"multipart/x-mixed-replace; boundary=frame"
                    line.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n")
                    for number in range(frames):
                        line.sendall(_part(number))
                        time.sleep(pause_s)
                        if over.is_set():
                            break
                except OSError:
                    pass  # the reader left

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{listener.getsockname()[1]}/live.mjpeg"
    finally:
        over.set()
        thread.join()
        listener.close()


def test_what_is_live() -> None:
    for address in ("0", "12", "/dev/video1", "rtsp://a/b", "RTSP://a", "http://a", "https://a/b"):
        assert is_live(address), address
    for path in ("a.mp4", "folder", "/dev/null", "0.mp4", "file:///a"):
        assert not is_live(path), path


def test_frames_come_and_a_line_that_breaks_is_opened_again() -> None:
    told: list[str] = []
    with camera(15) as address, LiveSource(address, told.append, timeout_s=3) as live:
        numbers, reconnects = [], 0
        for frame in live.frames(lambda: live.reconnects >= 1 and len(numbers) > 20):
            numbers.append(frame.number)
            assert frame.image.shape == (48, 64, 3)
            reconnects = live.reconnects
    assert numbers == list(range(len(numbers)))
    assert reconnects == 1
    assert "next try in 0.5 s" in told[0]
    assert told[1].endswith(": back")
    assert not any("secret" in line for line in told)


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    with camera(40, pause_s=0.005) as address, LiveSource(address, lambda _: None) as live:
        frames = live.frames()
        next(frames)
        time.sleep(0.3)
        late = next(frames)
    assert late.number == 1
    assert late.dropped > 5


def test_a_source_that_hangs_is_given_up_in_time() -> None:
    with camera(0, silent=True) as address:
        began = time.monotonic()
        with (
            LiveSource(address, lambda _: None, timeout_s=0.5, attempts=1) as live,
            pytest.raises(MediaError),
        ):
            list(live.frames())
        assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/dev/video97", "there is no such device"),
        ("97", "there is no such device"),
        ("http://127.0.0.1:9/none", "cannot be read"),
    ],
)
def test_what_is_not_there(address: str, sentence: str) -> None:
    told: list[str] = []
    with (
        LiveSource(address, told.append, timeout_s=1, attempts=2) as live,
        pytest.raises(MediaError, match=sentence),
    ):
        list(live.frames())
    assert len(told) == 1


def test_leaving_ends_the_reader() -> None:
    before = threading.active_count()
    with camera(10_000) as address:
        with LiveSource(address, lambda _: None, timeout_s=2) as live:
            next(live.frames())
        assert threading.active_count() == before + 1, "only the camera's own"


def test_messages_hide_the_password() -> None:
    assert shown("rtsp://me:word@host/live") == "rtsp://host/live"
    assert shown("0") == "0"
