"""Files of a web server that breaks off, drips, knows no ranges or changes the file."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest

from sdpose_core.io import remote, web
from sdpose_core.io.problems import MediaError
from sdpose_core.io.sources import find_sources, read_list, read_picture
from sdpose_core.io.video import VideoReader
from sdpose_core.io.web import WebFile
from tests.pictures import corners, encoded
from tests.sites import Answer, Request, served
from tests.videos import flat_video

DATA = np.random.default_rng(0).bytes(300_000)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PAUSES_S", (0.0, 0.0, 0.0))


def whole(address: str) -> bytes:
    return remote.read_bytes(address, 2**20)


def test_a_file_in_pieces_is_read_whole() -> None:
    def in_pieces(request: Request) -> None:
        data = lines if "list" in request.path else picture
        request.head(Content_Length=len(data))
        for start in range(0, len(data), 100):
            request.wfile.write(data[start : start + 100])
            request.wfile.flush()

    picture = encoded(corners(), "PNG")
    with served(in_pieces) as address:
        lines = "".join(f"{address}?{number}\n" for number in range(6)).encode()
        sources, _ = find_sources(read_list(address.replace("a.jpg", "list.txt")))
        assert [read_picture(source).shape for source in sources] == [(32, 48, 3)] * 6


@pytest.mark.parametrize("ranges", [True, False])
def test_what_breaks_off_goes_on_from_there(ranges: bool) -> None:
    asked: list[int] = []

    def breaking(request: Request) -> None:
        asked.append(request.begin())
        stop = 100_000 * len(asked)
        if not ranges:
            del request.headers["Range"]
        request.part(DATA, stop if stop < len(DATA) else None)

    with served(breaking) as address:
        assert whole(address) == DATA
    assert len(asked) == 3
    assert asked[0] == 0 < asked[1] < asked[2], "from where it broke"


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not() -> None:
    asked: list[str] = []

    def busy(request: Request) -> None:
        asked.append(request.path)
        if len(asked) < 3:
            request.head(503, Content_Length=0)
        elif len(asked) == 3:
            request.head(Content_Length=2)
            request.wfile.write(b"ok")
        else:
            request.head(403, Content_Length=0)

    with served(busy) as address:
        assert whole(address) == b"ok"
        with pytest.raises(MediaError, match="the server answered 403"):
            whole(address)
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda r: r.part(DATA, r.begin() + 10 if not r.begin() else r.begin()), "broke off after"),
        (lambda r: r.part(DATA, 9) if not r.begin() else r.part(DATA, tag='"2"'), "it changed"),
        (lambda r: r.head(404, Content_Length=0), "there is no such file"),
        (lambda r: r.part(bytes(2**21)), "larger than 1 MiB"),
    ],
)
def test_what_is_not_whole_fails(answer: Answer, said: str) -> None:
    with served(answer) as address, pytest.raises(MediaError, match=said):
        whole(address)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:99999/a", "http://[::1/a", "http://a b/c", "http:///a", "http://"]
)
def test_an_address_that_is_none_is_told(address: str) -> None:
    with pytest.raises(MediaError):
        whole(address)


def test_a_server_that_leads_in_a_circle_is_told() -> None:
    with (
        served(lambda r: r.head(302, Location="/again", Content_Length=0)) as address,
        pytest.raises(MediaError, match="redirects"),
    ):
        whole(address)


@pytest.mark.parametrize("where", ["head", "body", "between"])
def test_a_server_that_drips_holds_no_one(where: str) -> None:
    over = threading.Event()

    def dripping(request: Request) -> None:
        if where == "head":
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        elif where == "body":
            request.head(Content_Length=len(DATA))
        else:
            request.part(DATA, request.begin() + 1)
            return
        while not over.wait(0.05):
            request.wfile.write(b"x")

    with served(dripping) as address:
        try:
            with (
                pytest.raises(MediaError, match=r"too slow: \d+ bytes.* in 1 s"),
                WebFile(address, patience_s=1) as file,
            ):
                file.read()
        finally:
            over.set()


def test_chunks_and_answers_without_a_length() -> None:
    def chunked(request: Request) -> None:
        request.head(Transfer_Encoding="chunked")
        for start in (0, 150_000):
            request.wfile.write(b"%x\r\n" % 150_000 + DATA[start : start + 150_000] + b"\r\n")
        request.wfile.write(b"0\r\n\r\n")

    def until_closed(request: Request) -> None:
        request.head()
        request.wfile.write(DATA)

    for answer in (chunked, until_closed):
        with served(answer) as address, WebFile(address) as file:
            assert not file.seekable()
            assert file.read() == DATA
            assert file.read() == b""


@pytest.mark.parametrize("ranges", [True, False])
def test_seeking(ranges: bool) -> None:
    def answer(request: Request) -> None:
        if not ranges:
            del request.headers["Range"]
        request.part(DATA)

    with served(answer) as address, WebFile(address) as file:
        assert file.size == len(DATA)
        assert file.read(10) == DATA[:10]
        assert file.seek(-20, io.SEEK_END) == len(DATA) - 20
        assert file.read() == DATA[-20:]
        assert file.seek(5) == 5
        assert file.read(100_000) == DATA[5:100_005]
        file.seek(7, io.SEEK_CUR)
        assert file.tell() == 100_012
        assert file.read(3) == DATA[100_012:100_015]


def test_a_video_whose_index_is_at_the_end_of_a_server_without_ranges(tmp_path: Path) -> None:
    data = flat_video(tmp_path / "v.mp4", 20).read_bytes()

    def plain(request: Request) -> None:
        request.head(Content_Length=len(data))
        request.wfile.write(data)

    def breaking(request: Request) -> None:
        request.head(Content_Length=len(data))
        request.wfile.write(data[: len(data) // 2])

    with served(plain) as address, remote.opened(address) as file, VideoReader(file) as reader:
        assert len(list(reader)) == 20
    with (
        served(breaking) as address,
        remote.opened(address) as file,
        pytest.raises(MediaError, match="the connection broke off after"),
        VideoReader(file) as reader,
    ):
        list(reader)
