"""Cameras and addresses that answer, break off, hang or are not there."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sdpose_core.io.live import LiveSource, is_live, is_recording, shown
from sdpose_core.io.problems import MediaError
from tests.cameras import camera
from tests.sites import Request, served


def test_what_is_live() -> None:
    for address in ("0", "12", "/dev/video1", "rtsp://a/b", "RTSP://a", "http://a", "https://a/b"):
        assert is_live(address), address
    for path in ("a.mp4", "folder", "/dev/null", "0.mp4", "file:///a"):
        assert not is_live(path), path


def test_an_address_with_an_end_is_a_recording(tmp_path: Path) -> None:
    """Known by its length, or by its duration where it comes in chunks; a playlist is none."""
    import av

    path = tmp_path / "v.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            image = np.zeros((48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()

    def answer(request: Request) -> None:
        if "list" in request.path:
            request.head(Content_Length=9)
            request.wfile.write(b"#EXTM3U\n\n")
        elif "chunks" in request.path:
            request.head(Transfer_Encoding="chunked")
            request.wfile.write(b"%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n")
        else:
            request.part(data)

    with served(answer) as address:
        assert is_recording(address)
        assert is_recording(address + "?chunks")
        assert not is_recording(address + "?list")
    assert not is_recording(address), "nobody is there"
    with camera(100_000) as address:
        assert not is_recording(address)
    assert not is_recording("rtsp://127.0.0.1:9/a")


def test_frames_come_and_a_line_that_breaks_is_opened_again() -> None:
    told: list[str] = []
    with camera(15) as address, LiveSource(address, told.append, timeout_s=60) as live:
        numbers, reconnects = [], 0
        for frame in live.frames(lambda: live.reconnects >= 1 and len(numbers) > 20):
            numbers.append(frame.number)
            assert frame.image.shape == (48, 64, 3)
            reconnects = live.reconnects
    assert numbers == list(range(len(numbers)))
    assert reconnects >= 1
    assert "next try in 0.5 s" in told[0]
    assert told[1].endswith(": back")
    assert not any("secret" in line for line in told)


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    told: list[str] = []
    with camera(8) as address, LiveSource(address, told.append) as live:
        frames = live.frames()
        first = next(frames)
        while not told:  # all eight came, and the line broke
            time.sleep(0.01)
        late = next(frames)
    assert late.number == 1
    assert first.dropped + late.dropped >= 6


def test_a_source_that_hangs_is_given_up_in_time() -> None:
    with (
        camera(0, silent=True) as address,
        LiveSource(address, lambda _: None, timeout_s=0.5, attempts=1) as live,
        pytest.raises(MediaError),
    ):
        list(live.frames())


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
        LiveSource(address, told.append, timeout_s=60, attempts=2) as live,
        pytest.raises(MediaError, match=sentence),
    ):
        list(live.frames())
    assert len(told) == 1


def test_leaving_ends_the_reader() -> None:
    before = threading.active_count()
    with camera(10_000) as address:
        with LiveSource(address, lambda _: None, timeout_s=60) as live:
            next(live.frames())
        assert threading.active_count() == before + 1, "only the camera's own"


def test_messages_hide_the_password() -> None:
    assert shown("rtsp://me:word@host/live") == "rtsp://host/live"
    assert shown("0") == "0"
