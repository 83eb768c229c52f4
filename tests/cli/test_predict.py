"""``sdpose predict``: the run over sources with a stand-in, the command with the real models."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from sdpose_core.commands.predict import Interrupted, Prediction, drawings_in
from sdpose_core.files.outputs import OutputError
from sdpose_core.io.results.formats import open_results
from sdpose_core.io.results.json_lines import JsonLines
from sdpose_core.io.results.record import Record
from sdpose_core.io.sources import find_sources
from sdpose_core.io.video import VideoReader
from sdpose_core.tracking import TrackingConfig
from sdpose_core.types import Image, Poses
from tests.cli.conftest import Done
from tests.commands import SDPOSE, run_command
from tests.pictures import corners, encoded
from tests.videos import beeping_video, flat_video, loudness


def _one_person(image: Image) -> Poses:
    """A person as large as the picture, in its middle."""
    height, width = image.shape[:2]
    points = np.tile(np.array([width / 2, height / 2], np.float32), (1, 17, 1))
    points += np.arange(34, dtype=np.float32).reshape(1, 17, 2) / 2
    return Poses(
        points,
        np.ones((1, 17), np.float32),
        np.array([[0, 0, width, height]], np.float32),
        np.ones(1, np.float32),
    )


@dataclass
class Run:
    """A prediction over a folder with a stand-in for the models."""

    drawings: Path | None = None
    batch_size: int = 3
    stop_after: int | None = None
    tracking: TrackingConfig | None = None
    odd: frozenset[int] = frozenset()
    """Pictures and frames, in the order seen, whose poses are not finite."""
    batches: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    steps: int = 0
    expected: int = 0
    failures: int = 0

    def _estimate(self, images: Sequence[Image]) -> list[Poses]:
        first = sum(self.batches)
        self.batches.append(len(images))
        found = [_one_person(image) for image in images]
        for number, poses in enumerate(found, first):
            if number in self.odd:
                poses.keypoints[0, 3, 1] = np.nan
        return found

    def report(self, line: str) -> None:
        self.reports.append(line)

    def advance(self, steps: int) -> None:
        self.steps += steps

    def expect(self, steps: int) -> None:
        self.expected += steps

    @property
    def stopping(self) -> bool:
        return self.stop_after is not None and len(self.batches) >= self.stop_after

    def over(self, *inputs: Path) -> list[dict[str, Any]]:
        sources, _ = find_sources([str(one) for one in inputs])
        prediction = Prediction(
            self._estimate,
            JsonLines(self.lines.append),
            self.batch_size,
            None if self.drawings is None else drawings_in(self.drawings, sources),
            self,
            self.tracking,
        )
        try:
            prediction.run(sources)
        finally:
            self.failures = len(prediction.tally.failures)
        return [json.loads(line) for line in self.lines]


def _picture(path: Path, width: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix, "JPEG")
    path.write_bytes(encoded(corners(width), kind))
    return path


def test_pictures_go_in_batches_and_come_out_in_order(tmp_path: Path) -> None:
    paths = [_picture(tmp_path / f"{number}.png", 40 + number) for number in range(7)]
    run = Run()
    lines = run.over(tmp_path)
    assert run.batches == [3, 3, 1]
    assert [line["input"] for line in lines] == [str(path) for path in paths]
    assert [line["image"]["width"] for line in lines] == list(range(40, 47))
    assert run.steps == 7
    assert run.failures == 0


def test_bad_files_are_reported_and_skipped(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.mp4").write_bytes(b"no video")
    broken = encoded(corners(), "AVIF").replace(b"iloc", b"ilox")  # libavif: a RuntimeError
    (tmp_path / "e.avif").write_bytes(broken)
    _picture(tmp_path / "d.png")
    run = Run()
    lines = run.over(tmp_path)
    assert [Path(line["input"]).name for line in lines] == ["a.png", "d.png"]
    assert run.failures == 3
    bad = [str(tmp_path / name) for name in ("b.png", "c.mp4", "e.avif")]
    assert [report.split(": ")[0] for report in run.reports] == bad
    assert "e.avif: the image does not decode" in run.reports[2]


def test_video_frames_are_numbered(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    flat_video(tmp_path / "v.mp4", 7)
    _picture(tmp_path / "w.png")
    run = Run()
    lines = run.over(tmp_path)
    assert run.batches == [1, 3, 3, 1, 1]
    assert [line.get("frame") for line in lines] == [None, *range(7), None]
    assert lines[3]["time_s"] == pytest.approx(2 / 25, abs=1e-3)
    assert run.expected == 7
    assert run.steps == 9


def test_people_of_a_video_have_ids_which_begin_anew_with_the_next(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    flat_video(tmp_path / "v.mp4", 7)
    flat_video(tmp_path / "w.mp4", 3)
    ids = [
        [person.get("id") for person in line["people"]]
        for line in Run(tracking=TrackingConfig(), odd=frozenset({4})).over(tmp_path)
    ]
    assert ids == [[None], *[[1]] * 6, *[[1]] * 3], "an image has none; frame 3 is left out"


def test_drawings_have_a_place_each(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/deep/1.png", "b/1.jpg", "b/2.webp"):
        _picture(tmp_path / "in" / name)
    flat_video(tmp_path / "in" / "b" / "v.mp4", 7)
    out = tmp_path / "out"
    run = Run(drawings=out)
    run.over(tmp_path / "in" / "a", tmp_path / "in" / "b")
    assert run.reports == []
    drawn = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert drawn == ["1-2.jpg", "1.jpg", "2.jpg", "deep/1.png", "v.mp4"]
    with PillowImage.open(out / "deep/1.png") as opened:
        drawing = np.asarray(opened)
    assert drawing.shape == corners().shape
    assert (drawing != corners()).any()
    with VideoReader(out / "v.mp4") as reader:
        assert reader.rate == 25
        frames = [frame.image for frame in reader]
    assert len(frames) == 7
    assert frames[0].max() > 100, "a black frame with a skeleton on it"


def test_a_drawing_never_replaces_its_source(tmp_path: Path) -> None:
    picture, video = _picture(tmp_path / "a.png"), flat_video(tmp_path / "v.mp4", 7)
    before = picture.read_bytes(), video.read_bytes()
    run = Run(drawings=tmp_path)
    with pytest.raises(OutputError, match=r"a\.png: results would replace this input"):
        run.over(picture, video)
    assert (picture.read_bytes(), video.read_bytes()) == before
    assert run.lines == [], "nothing is written"


def test_a_failing_drawing_ends_only_the_drawing(tmp_path: Path) -> None:
    flat_video(tmp_path / "v.mp4", 7)
    blocked = tmp_path / "out"
    blocked.write_text("a file where the folder should be")
    run = Run(drawings=blocked)
    lines = run.over(tmp_path / "v.mp4")
    assert [line["frame"] for line in lines] == list(range(7))
    assert run.steps == 7
    assert len(run.reports) == run.failures == 1
    assert f"its drawing {blocked}/v.mp4 cannot be written" in run.reports[0]


def test_what_is_not_finite_is_told_and_left_out(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png", 40)
    _picture(tmp_path / "b.png", 41)
    flat_video(tmp_path / "v.mp4", 7)
    run = Run(drawings=tmp_path / "out", odd=frozenset({1, 4}))
    lines = run.over(tmp_path)
    assert [line["input"].rpartition("/")[2] for line in lines] == ["a.png"] + ["v.mp4"] * 6
    assert [line["frame"] for line in lines[1:]] == [0, 1, 3, 4, 5, 6]
    assert run.failures == 2
    assert run.reports[1].endswith("v.mp4: frame 2: the models gave a number that is not finite")
    with VideoReader(tmp_path / "out" / "v.mp4") as reader:
        assert len(list(reader)) == 7


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [
        ("v.mp4", "aac", "aac"),
        ("v.ts", "mp2", "aac"),
        ("v.mov", "pcm_s16le", "aac"),
        ("v.mkv", "flac", "flac"),
        ("v.mkv", "libopus", "opus"),
    ],
)
def test_a_drawn_video_keeps_its_sound(name: str, codec: str, kept: str, tmp_path: Path) -> None:
    import av

    video = beeping_video(tmp_path / name, codec)
    run = Run(drawings=tmp_path / "out")
    assert len(run.over(video)) == 30
    assert run.reports == []
    drawn = tmp_path / "out" / "v.mp4"
    with av.open(str(drawn)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == kept
        assert container.duration / 1e6 == pytest.approx(3, abs=0.1)
    found = loudness(drawn)
    assert found[:11] == pytest.approx(([1, 1, 0, 0] * 3)[:11], abs=0.25), "in time with the images"
    with VideoReader(drawn) as reader:
        assert [frame.time_s for frame in reader] == pytest.approx(
            [number / 10 for number in range(30)], abs=1e-3
        )


def test_stop_between_batches(tmp_path: Path) -> None:
    flat_video(tmp_path / "v.mp4", 7)
    run = Run(stop_after=1, drawings=tmp_path / "out")
    with pytest.raises(Interrupted):
        run.over(tmp_path / "v.mp4")
    assert len(run.lines) == 3
    assert not list((tmp_path / "out").glob("*")), "no half video"


# The command itself, with the embedded models ---------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ultralytics.utils import ASSETS

    folder = tmp_path_factory.mktemp("photographs")
    for name in ("bus.jpg", "zidane.jpg"):
        shutil.copy(ASSETS / name, folder / name)
    return folder


def _sdpose(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*SDPOSE, "predict", *map(str, arguments)],
        capture_output=True,
        check=False,
        **options,
    )


def test_command_end_to_end(photographs: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"x")
    run = _sdpose(photographs, bad, "--overlay", tmp_path / "drawn", "--backend", "torch")
    assert run.returncode == 1
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [Path(line["input"]).name for line in lines] == ["bus.jpg", "zidane.jpg"]
    assert len(lines[0]["people"]) >= 3
    assert len(lines[1]["people"]) >= 1
    nose = lines[0]["people"][0]["keypoints"][0]
    assert nose["name"] == "nose"
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        "bus.jpg",
        "zidane.jpg",
    ]
    errors = run.stderr.decode().splitlines()
    people = sum(len(line["people"]) for line in lines)
    assert errors[1].startswith(f"sdpose predict: 2 images, {people} people, 1 failed, in ")
    assert errors[1].endswith(f"; written: drawings in {tmp_path}/drawn")
    assert len(errors) == 2
    assert errors[0].startswith(f"sdpose predict: {bad}: ")


def test_standard_input_to_a_file(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.csv"
    run = _sdpose(
        "-", "-o", out, "--max-people", "2", "--backend", "torch",
        input=(photographs / "bus.jpg").read_bytes(),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == b""
    assert len(out.read_text().splitlines()) == 3
    assert [path.name for path in out.parent.iterdir()] == ["out.csv"]


def test_drawings_have_their_options_and_coco_the_same_threshold(
    photographs: Path, tmp_path: Path, sdpose: Callable[..., Done]
) -> None:
    photograph = tmp_path / "bus.png"
    with PillowImage.open(photographs / "bus.jpg") as opened:
        image = np.asarray(opened.convert("RGB").resize((405, 540)))
    PillowImage.fromarray(image).save(photograph)
    drawn, labelled = {}, {}
    for option in ("", "--boxes", "--thickness 9", "--min-keypoint-score 1"):
        out = tmp_path / f"out{option}"
        results = f"{out}.json"
        done = sdpose("predict", photograph, "--overlay", out, "-o", results, *option.split())
        assert done.returncode == 0, done.stderr
        with PillowImage.open(out / "bus.png") as opened:
            drawn[option] = int((np.asarray(opened) != image).any(axis=2).sum())
        people = json.loads(Path(results).read_text())["annotations"]
        labelled[option] = sum(person["num_keypoints"] for person in people)
    assert drawn["--min-keypoint-score 1"] == 0
    assert 0 < drawn[""] < drawn["--boxes"] < drawn["--thickness 9"]
    assert labelled["--min-keypoint-score 1"] == 0 < labelled[""] == labelled["--boxes"]


def test_nothing_to_do_and_wrong_names(
    photographs: Path, tmp_path: Path, sdpose: Callable[..., Done]
) -> None:
    run = sdpose("predict", tmp_path / "none.jpg")
    assert run.returncode == 1
    assert run.stderr == f"sdpose predict: {tmp_path}/none.jpg: no such file or folder\n"
    for option, value, told in (
        ("--student", "sdpose-x", "unknown student"),
        ("--detector", "nope.safetensors", "no such file"),
        ("--output", str(tmp_path), "is a folder"),
        ("--output", str(tmp_path / "out.xml"), "the suffix decides"),
    ):
        run = sdpose("predict", photographs / "bus.jpg", option, value)
        assert run.returncode == 2
        assert told in run.stderr
        assert run.stderr.count("\n") == 1
        assert run.stdout == ""


@pytest.mark.parametrize("to_file", [True, False])
def test_interrupt_leaves_whole_lines(to_file: bool, tmp_path: Path) -> None:
    video = flat_video(tmp_path / "v.mp4", 600)
    out = tmp_path / "out.jsonl"
    command = [*SDPOSE, "predict", str(video), "--batch-size", "1"]
    others = [tmp_path / f"out{suffix}" for suffix in (".parquet", ".json", ".csv")]
    outputs = [word for path in (out, *others) for word in ("--output", str(path))]
    command += ["--backend", "torch", *(outputs if to_file else [])]
    screen = tmp_path / "screen"
    written = tmp_path / "out.jsonl.part" if to_file else screen
    with screen.open("wb") as stdout:
        process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE)
        while not (written.exists() and written.stat().st_size):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert b"interrupted" in errors
    assert b"Traceback" not in errors
    text = written.read_text()
    assert text.endswith("\n")
    numbers = [json.loads(line)["frame"] for line in text.splitlines()]
    assert numbers == list(range(len(numbers)))
    assert 1 <= len(numbers) < 600
    assert not out.exists()
    for path in others if to_file else ():
        assert not path.exists()
        draft = tmp_path / f"{path.name}.part"
        assert draft.name in errors.decode()
        draft.rename(path)
        found = [record for record in open_results(path).records if isinstance(record, Record)]
        # A row per person, and nobody is in this video.
        assert [record.frame for record in found] == (numbers if path.suffix != ".csv" else [])


def test_a_reader_that_leaves_early_is_no_error(photographs: Path) -> None:
    command = shlex.join([*SDPOSE, "predict", str(photographs), "--batch-size", "1"])
    run = run_command(
        "bash", "-c", f"{command} --backend torch | head -c 10; echo ${{PIPESTATUS[0]}}"
    )
    assert run.stdout.endswith("141\n")
    assert "Traceback" not in run.stderr
