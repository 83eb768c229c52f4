"""Finding inputs, reading pictures and videos, writing videos."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sdpose_core.io.sources import BrokenVideo, MediaError, Source, find_sources, read_picture
from sdpose_core.io.video import VideoReader, VideoWriter
from sdpose_core.types import Image
from tests.pictures import corners, encoded, jpeg_with_orientation


def _frame(number: int, height: int = 48, width: int = 64) -> Image:
    """A flat picture whose brightness tells its number."""
    return np.full((height, width, 3), 20 + 8 * number, np.uint8)


def _video(path: Path, frames: int = 20, height: int = 48, width: int = 64) -> Path:
    with VideoWriter(path, Fraction(10)) as writer:
        for number in range(frames):
            writer.write(_frame(number, height, width))
    return path


def _names(folder: Path, *inputs: str) -> list[str]:
    sources, problems = find_sources([str(folder / one) for one in inputs])
    assert problems == []
    return [str(source.place) for source in sources]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "deep/v.mp4", "[x].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_folder_means_what_is_below_it_sorted(folder: Path) -> None:
    assert _names(folder, "") == ["[x].jpg", "a.PNG", "b.jpg", "deep/c.webp", "deep/v.mp4"]


def test_globs(folder: Path) -> None:
    assert _names(folder, "*.jpg") == ["[x].jpg", "b.jpg"]
    assert _names(folder, "**/*") == ["[x].jpg", "a.PNG", "b.jpg", "c.webp", "v.mp4"]


def test_a_name_that_exists_is_no_glob(folder: Path) -> None:
    assert _names(folder, "[x].jpg") == ["[x].jpg"]


def test_order_is_kept_and_a_file_comes_once(folder: Path) -> None:
    assert _names(folder, "b.jpg", "a.PNG", "*.jpg") == ["b.jpg", "a.PNG", "[x].jpg"]


def test_a_file_given_by_name_needs_no_known_suffix(folder: Path) -> None:
    assert _names(folder, "notes.txt") == ["notes.txt"]


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


def test_pictures_come_upright(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(jpeg_with_orientation(6))
    read = read_picture(find_sources([str(tmp_path)])[0][0])
    assert read.shape == corners().shape
    assert np.abs(read.astype(int) - corners()).max() < 12


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO(encoded(corners(), "PNG"))

    monkeypatch.setattr("sys.stdin", Input)
    sources, _ = find_sources(["-"])
    assert (read_picture(sources[0]) == corners()).all()


@pytest.mark.parametrize("data", [b"", b"hello", encoded(corners(), "PNG")[:60]])
def test_what_is_no_picture(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(data)
    with pytest.raises(MediaError) as raised:
        read_picture(Source(path, "p.png", Path("p.png")))
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


def test_an_unfinished_video_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with VideoWriter(tmp_path / "v.mp4", Fraction(10)) as writer:
            writer.write(_frame(0))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


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


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="no video stream"):
        VideoReader(path)


def test_a_damaged_video_gives_what_came_before(tmp_path: Path) -> None:
    # A stream whose index is not at the end survives being cut.
    import av

    path = tmp_path / "v.mkv"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(30):
            noise = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    seen = 0
    # Whether the damage shows as an error or as an early end depends on the format.
    with VideoReader(path) as reader, contextlib.suppress(BrokenVideo):
        for _ in reader:
            seen += 1
    assert 0 < seen < 30
