"""Finding inputs, reading pictures and videos, writing videos."""

from __future__ import annotations

import contextlib
import io
import os
import re
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sdpose_core.io import remote
from sdpose_core.io.problems import BrokenVideo, MediaError
from sdpose_core.io.sources import Source, find_sources, read_picture
from sdpose_core.io.video import VideoReader, VideoWriter
from sdpose_core.types import Image
from tests.core.test_images import HEIC
from tests.pictures import corners, encoded
from tests.videos import beeping_video, encoded_video, flat_video


def _frame(number: int, height: int = 48, width: int = 64) -> Image:
    """A flat picture whose brightness tells its number."""
    return np.full((height, width, 3), 20 + 8 * number, np.uint8)


def _video(path: Path, frames: int = 20, height: int = 48, width: int = 64) -> Path:
    return flat_video(path, frames, rate=10, height=height, width=width)


def _noise(count: int, side: int) -> list[Image]:
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return list(images)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "deep/v.mp4", "[x].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ([""], ["[x].jpg", "a.PNG", "b.jpg", "deep/c.webp", "deep/v.mp4"]),
        (["*.jpg"], ["[x].jpg", "b.jpg"]),
        (["**/*"], ["[x].jpg", "a.PNG", "b.jpg", "c.webp", "v.mp4"]),
        (["[x].jpg"], ["[x].jpg"]),
        (["b.jpg", "a.PNG", "*.jpg"], ["b.jpg", "a.PNG", "[x].jpg"]),
        (["notes.txt"], ["notes.txt"]),
    ],
    ids=["folder", "glob", "deep glob", "a name, no glob", "in order, once", "any suffix"],
)
def test_what_inputs_mean(folder: Path, inputs: list[str], found: list[str]) -> None:
    sources, problems = find_sources([str(folder / one) for one in inputs])
    assert problems == []
    assert [str(source.place) for source in sources] == found


def test_inputs_that_mean_nothing_are_told(folder: Path) -> None:
    (folder / "empty").mkdir()
    inputs = [str(folder / name) for name in ("none.jpg", "*.gif", "empty", "b.jpg")]
    sources, problems = find_sources(inputs)
    assert [source.name for source in sources] == [inputs[3]]
    assert problems == [
        f"{inputs[0]}: no such file or folder",
        f"{inputs[1]}: nothing matches",
        f"{inputs[2]}: no images or videos in this folder",
    ]


def test_what_a_folder_holds_and_is_not_read_is_told(folder: Path) -> None:
    for name in ("more.txt", "x.json", ".hidden", "c.jfif", "e.MPO"):
        (folder / name).write_bytes(encoded(corners(), "JPEG"))
    (folder / "f.heic").write_bytes(HEIC)
    (folder / "d.jpg").symlink_to("nowhere.jpg")
    told: list[str] = []
    sources, problems = find_sources([str(folder), str(folder / "*.json")], told.append)
    assert told == [
        f"{folder}: 3 of the files are no images or videos, and not read: x.json; "
        "more.txt and 1 more .txt",
        f"{folder}/*.json: 1 of the files are no images or videos, and not read: x.json",
    ]
    assert problems == [f"{folder}/*.json: nothing matches"]
    by_name = {source.place.name: source for source in sources}
    assert not by_name["f.heic"].is_video
    assert read_picture(by_name["c.jfif"]).shape == read_picture(by_name["e.MPO"]).shape
    for name, sentence in (("d.jpg", "a link to a file that is not there"), ("f.heic", "HEIC")):
        with pytest.raises(MediaError, match=sentence):
            read_picture(by_name[name])
    unnamed = folder / "heic"
    unnamed.write_bytes(HEIC)
    assert not find_sources([str(unnamed)])[0][0].is_video, "FFmpeg would read its first tile"


def test_standard_input_is_what_comes_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for kind in ("PNG", "BMP", "PNG"):
        content = SimpleNamespace(buffer=io.BytesIO(encoded(corners(), kind)))
        monkeypatch.setattr("sys.stdin", content)
        sources, _ = find_sources(["-", "-"])
        assert (read_picture(sources[0]) == corners()).all()
        seen.add(*(source.identity for source in sources))
    assert len(seen) == 2


def test_an_address_is_one_in_all_its_spellings() -> None:
    given = ["http://h/a.jpg?x=1", "HTTP://me:secret@H/a.jpg?x=1#top", "http://h/A.jpg", "gs://b/a"]
    assert [remote.canonical(one) for one in given] == [given[0], given[0], given[2], given[3]]
    assert remote.canonical("gcs://b/a") == "gs://b/a"


def test_one_file_under_two_spellings_comes_once_and_a_link_is_another(folder: Path) -> None:
    (folder / "link.jpg").symlink_to(folder / "b.jpg")
    spelled = [folder / "b.jpg", f"{folder}/./b.jpg", f"{folder}/../{folder.name}//b.jpg"]
    sources, _ = find_sources([*map(str, spelled), str(folder / "link.jpg")])
    assert [source.path.name for source in sources] == ["b.jpg", "link.jpg"]  # type: ignore[union-attr]


def test_names_that_are_no_text_or_no_names(folder: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    (folder / odd).write_bytes(encoded(corners(), "PNG"))
    sources, _ = find_sources([str(folder / odd)])
    assert sources[0].name.endswith("caf\\xe9.jpg")
    sources[0].name.encode()  # can be written
    (folder / "caf\\xe9.jpg").write_bytes(encoded(corners(), "PNG"))
    others, _ = find_sources([str(folder / "caf\\xe9.jpg")])
    assert others[0].name == sources[0].name
    assert others[0].identity != sources[0].identity
    assert (read_picture(sources[0]) == corners()).all()
    sources, problems = find_sources(["a" * 300, "a\0b", str(folder / "b.jpg")])
    assert len(sources) == 1
    assert re.fullmatch(r"a{80}\.{3}a{30}: File name too long", problems[0])
    assert "null" in problems[1]


@pytest.mark.parametrize("name", ["clip", "clip.3gp", "clip.bin", "clip.jpeg.part", "-"])
def test_a_video_is_known_by_its_content(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _video(tmp_path / "v.mp4", 3).read_bytes()
    if name == "-":
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    else:
        (tmp_path / name).write_bytes(data)
        name = str(tmp_path / name)
    [source], _ = find_sources([name])
    assert source.is_video
    with source.opened() as file, VideoReader(file) as reader:
        assert len(list(reader)) == 3
    (tmp_path / "really.mp4").write_bytes(encoded(corners(), "PNG"))
    [source], _ = find_sources([str(tmp_path / "really.mp4")])
    assert not source.is_video


def test_times_count_from_the_first_frame_and_the_last_keeps_its_duration(tmp_path: Path) -> None:
    """Uneven frames of a clock that starts at 1.6 s, read, written and read again."""
    at = [1600, 1633, 1700, 2400, 2650]
    path = tmp_path / "v.mkv"
    encoded_video(str(path), map(_frame, range(len(at))), rate=30, times_ms=at)
    with VideoReader(path) as reader:
        frames = list(reader)
    expected = [(ms - at[0]) / 1000 for ms in at]
    assert [frame.time_s for frame in frames] == pytest.approx(expected, abs=0.002)
    copy = tmp_path / "copy.mp4"
    with VideoWriter(copy, Fraction(30)) as writer:
        for frame in frames[:-1]:
            writer.write(frame.image, frame.time_s, frame.duration_s)
        writer.write(frames[-1].image, frames[-1].time_s, 0.5)
        writer.write(frames[-1].image, frames[-1].time_s, 0.5)  # not later: moved behind
    with VideoReader(copy) as reader:
        whole_s = float(reader._container.duration) / 1e6
        assert whole_s == pytest.approx(expected[-1] + 0.5, abs=0.01)
        again = [frame.time_s for frame in reader]
    assert again[:-1] == pytest.approx(expected, abs=0.002)


def test_a_clock_that_begins_again_goes_on(tmp_path: Path) -> None:
    """Recordings joined end to end, the second of them longer."""
    for name, count in (("a.ts", 6), ("b.ts", 9)):
        images = [_frame(0)] * count
        encoded_video(str(tmp_path / name), images, rate=12, format="mpegts")
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with VideoReader(both) as reader:
        times = [frame.time_s for frame in reader]
    assert times == pytest.approx([number / 12 for number in range(15)], abs=0.001)


def _tracks(path: Path, *tracks: tuple[str, int, int]) -> Path:
    """A file with a picture in each track: codec, grey value, disposition."""
    import av

    with av.open(str(path), "w") as container:
        streams = []
        for codec, _, disposition in tracks:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = disposition
            streams.append(stream)
        for stream, (_, grey, _) in zip(streams, tracks, strict=True):
            image = np.full((48, 64, 3), grey, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    return path


def test_the_default_track_is_read_and_a_cover_is_none(tmp_path: Path) -> None:
    from av.stream import Disposition as Of

    two = _tracks(tmp_path / "two.mkv", ("mpeg4", 20, 0), ("mpeg4", 200, Of.default))
    with VideoReader(two) as reader:
        assert next(iter(reader)).image.mean() > 150
    film = ("mpeg4", 20, 0)
    with VideoReader(
        _tracks(tmp_path / "film.mp4", ("mjpeg", 200, Of.attached_pic), film)
    ) as reader:
        assert next(iter(reader)).image.mean() < 100
    cover = _tracks(tmp_path / "cover.mp4", ("mjpeg", 200, Of.attached_pic))
    with pytest.raises(MediaError, match="no video but a cover"):
        VideoReader(cover)


def test_damage_in_the_middle_costs_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    encoded_video(str(path), _noise(30, 128), rate=15, gop_size=5)
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + len(data) // 3
    data[start : start + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(data)
    seen = []
    with VideoReader(path) as reader, contextlib.suppress(BrokenVideo):
        seen.extend(reader)
    assert 20 <= len(seen) <= 30
    assert seen[-1].time_s > 1.8
    assert [frame.number for frame in seen] == list(range(len(seen)))


@pytest.mark.parametrize("data", [b"", b"hello", encoded(corners(), "PNG")[:60]])
def test_what_is_no_picture(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(data)
    with pytest.raises(MediaError) as raised:
        read_picture(Source(path, "p.png", Path("p.png"), "p.png"))
    assert "\n" not in str(raised.value)


def test_video_round_trip(tmp_path: Path) -> None:
    path = _video(tmp_path / "new" / "v.mp4")
    with VideoReader(path) as reader:
        assert reader.rate == 10
        assert reader.frames == 20
        frames = list(reader)
    assert [frame.number for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(20) / 10, atol=1e-3)
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert abs(frame.image.mean() - _frame(frame.number).mean()) < 4


def test_odd_sides_lose_a_row_and_a_column(tmp_path: Path) -> None:
    with VideoReader(_video(tmp_path / "v.mp4", 2, 49, 65)) as reader:
        assert next(iter(reader)).image.shape == (48, 64, 3)


def test_a_frame_without_size_does_not_encode(tmp_path: Path) -> None:
    with (
        pytest.raises(MediaError, match="cannot be written"),
        VideoWriter(tmp_path / "v.mp4", Fraction(10)) as writer,
    ):
        writer.write(_frame(0, 1, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"no video at all" * 100])
def test_what_is_no_video(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError, match="cannot be opened"):
        VideoReader(path)


def test_sound_that_cannot_be_kept_ends_only_itself(tmp_path: Path) -> None:
    import av

    class Broken:
        def decode(self) -> list[object]:
            raise av.ExternalError(1, "no decoder")

    path = beeping_video(tmp_path / "v.mov", "pcm_s16le")
    copy = tmp_path / "copy.mp4"
    with VideoReader(path) as reader, VideoWriter(copy, reader.rate, sound=reader.sound) as writer:
        writer.add_sound(Broken(), 0.0)  # waits for the first frame
        for number, frame in enumerate(reader):
            writer.write(frame.image, frame.time_s)
            if number == 0:
                with pytest.raises(MediaError, match=r"copy\.mp4 has not all of the sound"):
                    writer.add_sound(Broken(), 0.1)
            writer.add_sound(Broken(), 0.2)
    with VideoReader(copy) as reader:
        assert len(list(reader)) == 30


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="there is no video in it"):
        VideoReader(path)


def test_a_damaged_video_gives_what_came_before(tmp_path: Path) -> None:
    # A stream whose index is not at the end survives being cut.
    path = tmp_path / "v.mkv"
    encoded_video(str(path), _noise(30, 64))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    seen = 0
    # Whether the damage shows as an error or as an early end depends on the format.
    with VideoReader(path) as reader, contextlib.suppress(BrokenVideo):
        for _ in reader:
            seen += 1
    assert 0 < seen < 30
