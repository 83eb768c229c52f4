"""Cameras and addresses that answer, break off, hang or are not there."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sdpose_core.io.live import LiveSource, is_live, is_recording
from sdpose_core.io.problems import MediaError
from sdpose_core.io.video import VideoReader
from tests.cameras import camera
from tests.sites import Request, served, served_folder
from tests.videos import encoded_video, flat_video


def test_what_is_live() -> None:
    for address in ("0", "12", "/dev/video1", "rtsp://a/b", "RTSP://a", "http://a", "https://a/b"):
        assert is_live(address), address
    for path in ("a.mp4", "folder", "/dev/null", "0.mp4", "file:///a"):
        assert not is_live(path), path


def test_an_address_with_an_end_is_a_recording(tmp_path: Path) -> None:
    """Known by its length, or by its duration where it comes in chunks; a playlist is none."""
    path = tmp_path / "v.mp4"
    images = [np.zeros((48, 64, 3), np.uint8)] * 20
    encoded_video(str(path), images, options={"movflags": "faststart"})
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


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp", "mpd"])
def test_what_leads_elsewhere_is_opened_by_no_reader(tmp_path: Path, kind: str) -> None:
    """From a file, from an address, and as a camera; the recording it names is one that is read."""
    video = flat_video(tmp_path / "secret.mp4", 8)
    with VideoReader(video) as reader:
        assert sum(1 for _ in reader) == 8
    lists = {
        "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 18159 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
        "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    }
    refused = "playlist or script|Invalid data found"  # where FFmpeg does not know it at all
    (tmp_path / f"list.{kind}").write_text(lists[kind].format(video))
    (tmp_path / "list.mp4").write_text(lists[kind].format(video))
    for name in (f"list.{kind}", "list.mp4"):
        for given in (tmp_path / name, io.BytesIO((tmp_path / name).read_bytes())):
            with pytest.raises(MediaError, match=refused):
                VideoReader(given)
        with served_folder(tmp_path) as address:
            source = LiveSource(f"{address}/{name}", lambda _: None, timeout_s=60, attempts=1)
            with source as live, pytest.raises(MediaError, match=refused):
                list(live.frames())


def test_a_name_that_ffmpeg_would_take_for_a_list_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flat_video(Path("a.mp4"), 1)
    for name in ("concat:a.mp4", "a%03d.mp4", "http:a.mp4"):
        Path("a.mp4").rename(name)
        with VideoReader(Path(name)) as reader:
            assert sum(1 for _ in reader) == 1
        Path(name).rename("a.mp4")
    with pytest.raises(MediaError):
        VideoReader(Path("concat:a.mp4"))
