"""`sdpose stream`: recordings, cameras and a running service."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from ultralytics.utils import ASSETS

from sdpose_core.commands.stream import StreamRun, Summary, recorded_frames
from sdpose_core.io.live import TimedImage, live_frames
from sdpose_core.io.problems import MediaError
from sdpose_core.io.results.json_lines import JsonLines
from sdpose_core.io.sources import find_sources
from sdpose_core.io.video import VideoReader, VideoWriter
from sdpose_core.types import Poses
from service.cli.console import LineFile, SinkError
from service.cli.window import open_window
from tests.cameras import camera
from tests.cli.conftest import Done
from tests.commands import SDPOSE, run_command
from tests.sites import served


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of people who move to the left."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    image = np.asarray(PillowImage.open(ASSETS / "bus.jpg").resize((405, 540)))
    with VideoWriter(path, Fraction(10)) as writer:
        for number in range(12):
            writer.write(np.ascontiguousarray(image[:, number * 2 : number * 2 + 380]))
    return path


def sdpose_stream(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_command(*SDPOSE, "stream", *arguments)


def test_a_recording_gives_ids_lines_a_drawing_and_a_summary(clip: Path, tmp_path: Path) -> None:
    lines_file, drawn = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    done = sdpose_stream(clip, "--json", lines_file, "--overlay", drawn)
    assert done.returncode == 0, done.stderr
    lines: list[dict[str, Any]] = [json.loads(line) for line in lines_file.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(12))
    assert [line["time_s"] for line in lines] == pytest.approx([n / 10 for n in range(12)])
    steady = {person["id"] for line in lines[2:] for person in line["people"] if "id" in person}
    assert {1, 2, 3} <= steady
    assert len(steady) <= 5
    assert "12 frames" in done.stderr
    assert "p95" in done.stderr
    with VideoReader(drawn) as reader:
        times = [frame.time_s for frame in reader]
    assert times == pytest.approx([n / 10 for n in range(12)], abs=0.005)


def test_a_recording_at_an_address_is_answered_frame_by_frame(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    with served(lambda request: request.part(data)) as address:
        done = sdpose_stream(address.replace("a.jpg", "clip.mp4"), "--json", tmp_path / "a.jsonl")
    assert done.returncode == 0, done.stderr
    times = [json.loads(line)["time_s"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert times == pytest.approx([n / 10 for n in range(12)])


def test_every_and_the_screen(clip: Path, sdpose: Callable[..., Done]) -> None:
    done = sdpose("stream", clip, "--json", "-", "--every", 4, "--no-tracking")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 4, 8]
    assert not any("id" in person for line in lines for person in line["people"])


def test_a_camera_that_ends_is_given_up(tmp_path: Path, sdpose: Callable[..., Done]) -> None:
    drawn = tmp_path / "a.mp4"
    with camera(5) as address:
        done = sdpose(
            *("stream", address, "--json", tmp_path / "a.jsonl"),
            *("--overlay", drawn, "--attempts", 1),
        )
    assert done.returncode == 1
    assert "the connection broke off" in done.stderr
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    with VideoReader(drawn) as reader:
        assert sum(1 for _ in reader) == len(lines) >= 1


IN_TERMINAL = """
import fcntl, os, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from service.cli.main import main
main()
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, "closed terminal"])
def test_an_ended_stream_leaves_whole_files(end: signal.Signals | str, tmp_path: Path) -> None:
    """Its lines are followed under the name that was given; what was there before has gone."""
    lines, drawn = tmp_path / "a.jsonl", tmp_path / "a.mp4"
    lines.write_text("before")
    ours, its = os.openpty()
    with camera(100_000, pause_s=0.02) as address:
        command = [sys.executable, "-c", IN_TERMINAL, "stream", address, "--json", str(lines)]
        running = subprocess.Popen(
            [*command, "--overlay", str(drawn)], stdin=its, stdout=its, stderr=its
        )
        os.close(its)
        while lines.read_bytes().count(b"\n") < 4:
            assert running.poll() is None, os.read(ours, 4096)
            time.sleep(0.05)
        if isinstance(end, signal.Signals):
            os.kill(running.pid, end)
        else:
            os.close(ours)
            os.kill(running.pid, signal.SIGHUP)  # its shell sends another
        assert running.wait() == 0
    if isinstance(end, signal.Signals):
        assert b"p50" in os.read(ours, 2**16)
        os.close(ours)
    assert all(json.loads(line)["image"] for line in lines.read_text().splitlines())
    with VideoReader(drawn) as reader:
        assert sum(1 for _ in reader) == len(lines.read_text().splitlines())
    assert sorted(tmp_path.iterdir()) == [lines, drawn]


def _answers(count: int, people: int, *, noise: bool) -> Iterator[tuple[TimedImage, Poses]]:
    random = np.random.default_rng(0)
    poses = Poses(
        np.zeros((people, 17, 2), np.float32),
        np.ones((people, 17), np.float32),
        np.zeros((people, 4), np.float32),
        np.ones(people, np.float32),
    )
    for number in range(count):
        pixels = random.integers(0, 256 if noise else 1, (240, 320, 3), np.uint8)
        yield TimedImage(number, number / 10, time.monotonic(), pixels), poses


@pytest.mark.parametrize("fills", ["lines", "drawing"])
def test_a_full_disk_leaves_what_was_written(fills: str, tmp_path: Path) -> None:
    lines, drawn = LineFile(tmp_path / "a.jsonl"), tmp_path / "a.mp4"
    answers = _answers(200, 40 if fills == "lines" else 0, noise=fills == "drawing")
    run = StreamRun("0", JsonLines(lines.put), drawn, Fraction(10), lambda *_: None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, before[1]))
    try:
        with pytest.raises((OSError, MediaError)) as raised:
            run.run(answers)
        lines.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ("a.mp4" in str(raised.value)) == (fills == "drawing")
    written = [
        json.loads(line)["frame"] for line in (tmp_path / "a.jsonl").read_text().splitlines()
    ]
    assert written == list(range(len(written)))
    with VideoReader(drawn) as reader:
        shown = sum(1 for _ in reader)
    # What the encoder still looked at, and the second that was being stored, are lost.
    assert len(written) - (60 if fills == "drawing" else 0) <= shown <= len(written) < 200
    assert shown >= 10
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_of_lines_is_one_runs_and_keeps_what_it_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("before\n")
    first = LineFile(path)
    with pytest.raises(SinkError, match="another run is writing to it"):
        LineFile(path)
    first.finish()
    assert path.read_text() == "before\n", "no line came"
    LineFile(tmp_path / "new.jsonl").finish()
    assert list(tmp_path.iterdir()) == [path]
    full = LineFile(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        full.put("a\n")
    full.finish()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["/dev/video97", "--attempts", "1"], 1, "there is no such device"),
        (["no-such-file.mp4"], 1, "no such file or folder"),
        (["0", "--detect-every", "0"], 2, "must be 1 to 1000, or auto"),
        (["0", "--server", "127.0.0.1:9", "--attempts", "1"], 1, "sdpose stream: "),
    ],
)
def test_what_cannot_be(
    arguments: list[str], status: int, sentence: str, sdpose: Callable[..., Done]
) -> None:
    done = sdpose("stream", *arguments)
    assert done.returncode == status, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def _recorded(folder: Path, every: int = 1) -> tuple[list[TimedImage], list[str], str]:
    """The frames, what was told, and with which sentence it ended."""
    told: list[str] = []
    sources, _ = find_sources([str(folder)])
    frames: list[TimedImage] = []
    try:
        frames.extend(recorded_frames(sources, 5.0, every, lambda: False, told.append))
    except MediaError as error:
        return frames, told, str(error)
    return frames, told, ""


def test_a_folder_of_images_in_order(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        PillowImage.new("RGB", (8 + number, 8)).save(tmp_path / f"{number}.png")
    frames, told, end = _recorded(tmp_path)
    assert [frame.image.shape[1] for frame in frames] == [8, 9, 10]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.2, 0.4])
    assert (told, end) == ([], "")


def test_a_folder_with_videos_and_a_broken_image(tmp_path: Path, clip: Path) -> None:
    PillowImage.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "c.mp4").write_bytes(clip.read_bytes())
    PillowImage.new("RGB", (8, 8)).save(tmp_path / "d.png")
    frames, told, end = _recorded(tmp_path)
    assert [frame.number for frame in frames] == list(range(14))
    times = [frame.time_s for frame in frames]
    assert times == pytest.approx([0, *(0.2 + n / 10 for n in range(12)), 1.5])
    assert len(told) == 1
    assert "b.png" in told[0]
    assert end == "1 of 4 failed"


def test_a_recording_without_frames() -> None:
    with pytest.raises(MediaError, match="no frames in it"):
        list(recorded_frames([], None, 1, lambda: False, print))


def test_frames_left_out_on_purpose_keep_count_of_those_dropped() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    source = [TimedImage(n, n / 30, 100 + n / 30, image, dropped=1) for n in range(30)]
    slower = list(live_frames(source, 10.0, 1))
    assert [frame.number for frame in slower] == list(range(0, 30, 3))
    assert [frame.dropped for frame in slower] == [1, *[3] * 9]
    assert [frame.number for frame in live_frames(source, None, 7)] == [0, 7, 14, 21, 28]


def test_a_camera_that_changes_its_size_goes_on(tmp_path: Path) -> None:
    sizes = [(48, 64)] * 3 + [(96, 128)] * 2
    answers = (
        (TimedImage(n, n / 10, time.monotonic(), np.zeros((*size, 3), np.uint8)), Poses.empty())
        for n, size in enumerate(sizes)
    )
    drawn = tmp_path / "a.mp4"
    StreamRun("0", None, drawn, Fraction(10), lambda *_: None).run(answers)
    with VideoReader(drawn) as reader:
        assert [frame.image.shape for frame in reader] == [(48, 64, 3)] * 5


def test_the_summary() -> None:
    summary = Summary()
    assert str(summary) == "no frames"
    image = np.zeros((2, 2, 3), np.uint8)
    for number in range(10):
        frame = TimedImage(number, number / 10, time.monotonic() - 0.05, image, dropped=2)
        summary.add(frame, Poses.empty())
    text = str(summary)
    assert text.startswith("10 frames")
    assert "20 dropped" in text
    assert 49 < summary.latencies_ms[0] < 200


@pytest.fixture
def screen() -> Iterator[str]:
    """The name of a display that no one sees."""
    pytest.importorskip("tkinter", reason="this Python has no tkinter (Debian: python3-tk)")
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "800x700x24"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        yield f":{server.stdout.readline().strip()}"
    finally:
        server.terminate()
        server.communicate()


def test_a_window_shows_the_people_and_q_ends_it(
    screen: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", screen)
    script = """
import numpy as np
from service.cli.console import LineFile, SinkError
from service.cli.window import Window
window = Window("people")
image = np.full((40, 60, 3), (255, 138, 36), np.uint8)
window.show(image)
assert window._photo.get(30, 20) == (255, 138, 36), window._photo.get(30, 20)
window.show(np.zeros((90, 70, 3), np.uint8))
assert (window._photo.width(), window._photo.height()) == (70, 90)
assert not window.poll()
window._root.focus_force()
window._root.event_generate("<Escape>", when="tail")
assert window.poll()
window.show(image)
window.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    done = sdpose_stream(clip, "--window", "--json", tmp_path / "a.jsonl")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 12


def test_no_window_without_a_display(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert open_window("people", show=None) is None
    assert open_window("people", show=False) is None
    pytest.importorskip("tkinter", reason="this Python has no tkinter (Debian: python3-tk)")
    done = sdpose_stream(clip, "--window")
    assert done.returncode == 1
    assert "sdpose stream: no display" in done.stderr
    monkeypatch.setenv("DISPLAY", ":no-such-display")
    assert open_window("people", show=None) is None
