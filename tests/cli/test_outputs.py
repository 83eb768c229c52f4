"""What every command does with its inputs and with another run in the same place: nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import service
from sdpose_core.checkpoints import trained_path
from sdpose_core.files.outputs import only_run
from sdpose_core.io.results.formats import SUFFIXES, open_results
from sdpose_core.io.results.record import Record
from tests.cli.conftest import Done
from tests.commands import SDPOSE, run_command
from tests.pictures import corners, encoded
from tests.train.people import coco_folder
from tests.videos import flat_video

Sdpose = Callable[..., Done]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with everything that commands read; every file of it has a hard link beside it."""
    folder = tmp_path / "in"
    coco_folder(folder, images=1)
    for name, kind in (
        ("photo.png", "PNG"),
        ("photo.bmp", "BMP"),
        ("photo.tif", "TIFF"),
        ("photo.jpg", "JPEG"),
        *((f"results{suffix}", "PNG") for suffix in SUFFIXES),
        ("odd.jsonl.part", "PNG"),
    ):
        (folder / name).write_bytes(encoded(corners(48), kind))
    (folder / "list.csv").write_text(str(folder / "photo.png"))
    for name in ("net.safetensors", "net.torchscript", "net.bin", "net.csv"):
        shutil.copy(trained_path("sdpose-lite"), folder / name)
    for name in ("best.safetensors", "person.safetensors"):
        os.link(folder / "net.safetensors", folder / name)
    (folder / "config.json").write_text('preset = "lite"\n')
    (folder / "data.yaml").write_text("names: [person]\n")
    return folder


def _state(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _annotations(inputs: Path) -> str:
    """The name of the COCO file."""
    others = ("config.json", "results.json")
    (name,) = (path.name for path in inputs.glob("*.json") if path.name not in others)
    return name


OVER_INPUTS = {
    "drawing": "predict {0}/photo.bmp {0}/photo.png --overlay {0}",
    "drawing over what may be an original": "predict {0}/photo.tif --overlay {0}",
    "drawing through its own name": "predict {0}/photo.png --overlay {0}",
    **{
        f"results{suffix}": f"predict {{0}}/results{suffix} -o {{0}}/results{suffix} -o {{0}}/x.csv"
        for suffix in SUFFIXES
    },
    "Parquet alone": "predict {0}/results.parquet -o {0}/results.parquet --force",
    "results before they are complete": "predict {0}/odd.jsonl.part -o {0}/odd.jsonl",
    "results over the list": "predict --list {0}/list.csv -o {0}/list.csv --force",
    "results over the student": "predict {0}/photo.png --student {0}/net.csv -o {0}/net.csv",
    "results over the detector": "predict {0}/photo.png --detector {0}/net.csv -o {0}/net.csv",
    "results over each other": "predict {0}/photo.png -o {0}/new.csv -o {0}/../in/new.csv",
    "stream's drawing": "stream {0}/photo.png --overlay {0}/photo.png",
    "stream's lines": "stream {0}/photo.png --json {0}/photo.png",
    "stream's drawing over its lines": "stream {0}/photo.png --json {0}/x --overlay {0}/x",
    "export": "export --student {0}/net.torchscript --output {0}/net.torchscript --force",
    "export's weights": "export --student {0}/net.bin --output {0}/net.xml --force",
    "convert": "convert {0}/net.safetensors {0}/best.safetensors --force",
    "convert-results": "convert-results {0}/results.csv {0}/results.csv --force",
    "convert-detector": "convert-detector {0}/net.safetensors {0}/person.safetensors",
    "report": "evaluate {0}/{1} {0}/images --output {0}/{1}",
    "worst cases": "evaluate {0}/{1} {0}/images --worst {0}/images",
    "run over its start": "train --run {0} --start {0}/net.safetensors --shards {0}",
    "run over its recipe": "train --run {0} --config {0}/config.json --shards {0}",
    "detector's data": "train-detector {0}/data.yaml --output {0}",
    "detector's start": "train-detector {0}/data.yaml --output {0} --start {0}/best.safetensors",
    "pack": "pack {0}/{1} {0}/images {0}/{1}",
}


@pytest.mark.parametrize("words", OVER_INPUTS.values(), ids=OVER_INPUTS)
def test_no_output_takes_the_place_of_an_input(words: str, inputs: Path, sdpose: Sdpose) -> None:
    annotations = _annotations(inputs)
    before = _state(inputs)
    done = sdpose(*words.format(inputs, annotations).split())
    assert done.returncode == 2, done.stderr
    flat = " ".join(done.stderr.replace("│", " ").split())
    assert any(
        told in flat for told in ("would replace", "same file", "this is a file", "original")
    ), flat
    assert done.stdout == ""
    assert _state(inputs) == before


def test_standard_input_is_an_input_too(inputs: Path) -> None:
    before = _state(inputs)
    with (inputs / "results.csv").open("rb") as photo:
        done = run_command(*SDPOSE, "predict", "-", "-o", inputs / "results.csv", stdin=photo)
    assert done.returncode == 2
    assert "would replace" in done.stderr
    assert _state(inputs) == before


IN_USE = {
    "several": ("predict {0}/photo.png -o {1}.csv -o {1}.json -o {1}.parquet -o {1}", False),
    "parts": ("predict {0}/photo.png -o {1}/", True),
    "stream's lines": ("stream {0}/photo.png --json {1}", False),
    "stream's drawing": ("stream {0}/photo.png --overlay {1}", False),
    "export": ("export --output {1} --format onnx", False),
    "report": ("evaluate {0}/{2} {0}/images --output {1}", False),
    "worst cases": ("evaluate {0}/{2} {0}/images --worst {1}", True),
    "train": ("train --run {1} --shards {0}", True),
    "train-detector": ("train-detector {0}/data.yaml --output {1}", True),
    "pack": ("pack {0}/{2} {0}/images {1}", True),
}


@pytest.mark.parametrize(("words", "folder"), IN_USE.values(), ids=IN_USE)
def test_two_runs_do_not_write_into_one_place(
    words: str, folder: bool, inputs: Path, tmp_path: Path, sdpose: Sdpose
) -> None:
    annotations = _annotations(inputs)
    place = tmp_path / ("out" if folder else "out.jsonl" if "predict" in words else "out.onnx")
    with only_run(place, folder=folder):
        before = _state(tmp_path)
        done = sdpose(*words.format(inputs, place, annotations).split())
        assert _state(tmp_path) == before
    assert done.returncode == 2, done.stderr
    flat = " ".join(done.stderr.replace("│", " ").split())
    assert f"another run is writing to it (process {os.getpid()} on" in flat


def test_a_parquet_file_and_the_folder_of_its_parts_are_one_place(
    inputs: Path, tmp_path: Path, sdpose: Sdpose
) -> None:
    with only_run(tmp_path / "out.parquet.parts", folder=True):
        for output in ("out.parquet", "out.parquet.parts/"):
            done = sdpose("predict", inputs / "photo.png", "-o", f"{tmp_path}/{output}")
            assert done.returncode == 2
            assert f"{tmp_path}/{output}: another run is writing to it" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("OUT.PARQUET", b"PAR1"),
        ("out.CSV", b"input,frame"),
        ("out.JSON", b'{"images"'),
        ("out.JsonL", b'{"in'),
    ],
)
def test_the_ending_says_the_format_in_any_case(
    name: str, first: bytes, inputs: Path, tmp_path: Path, sdpose: Sdpose
) -> None:
    done = sdpose("predict", inputs / "photo.png", "-o", tmp_path / name)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name).read_bytes().startswith(first)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in", name])


def test_one_run_writes_every_format_and_a_summary(
    inputs: Path, tmp_path: Path, sdpose: Sdpose
) -> None:
    flat_video(inputs / "v.mp4", 3)
    (inputs / "bad.png").write_bytes(b"no image")
    out = tmp_path / "new" / "out"
    files = [f"{out}{suffix}" for suffix in SUFFIXES]
    words = [word for file in files for word in ("-o", file)]
    given = [inputs / name for name in ("photo.png", "v.mp4", "bad.png", "gone.png")]
    done = sdpose("predict", *given, *words, "--overlay", tmp_path / "drawn")
    assert done.returncode == 1
    assert done.stdout == ""
    summary = done.stderr.splitlines()[-1]
    assert summary.startswith(
        "sdpose predict: 1 image, 3 frames of videos, 0 people, 2 failed, in "
    )
    assert summary.endswith(f"; written: {', '.join(files)}, drawings in {tmp_path}/drawn")
    names = sorted(path.name for path in out.parent.iterdir())
    assert names == sorted(Path(file).name for file in files)
    for file in files:
        records = [one for one in open_results(Path(file)).records if isinstance(one, Record)]
        assert [(one.source, one.frame) for one in records] == (
            []  # a row per person, and there is none
            if file.endswith(".csv")
            else [(str(given[0]), None), *((str(given[1]), frame) for frame in range(3))]
        )
    failed = [one for one in open_results(Path(f"{out}.parquet")).records if isinstance(one, tuple)]
    assert [source.name for source, _ in failed] == [str(given[2])]
    settings = json.loads(pq.read_schema(f"{out}.parquet").metadata[b"sdpose.settings"])
    assert {"student_sha256", "detector_sha256", "track"} <= set(settings)


@pytest.mark.parametrize(
    "there", [*(f"out{suffix}" for suffix in SUFFIXES), "drawn/photo.png", "alone.parquet"]
)
def test_nothing_is_replaced_without_force(
    there: str, inputs: Path, tmp_path: Path, sdpose: Sdpose
) -> None:
    (tmp_path / "drawn").mkdir()
    (tmp_path / there).write_text("before")
    words = ["predict", inputs / "photo.png"]
    if there == "alone.parquet":
        words += ["-o", tmp_path / there]
    else:
        words += [word for suffix in SUFFIXES for word in ("-o", tmp_path / f"out{suffix}")]
        words += ["--overlay", tmp_path / "drawn"]
    before = _state(tmp_path)
    # Not even read: the student is no file.
    done = sdpose(*words, *([] if there == "alone.parquet" else ["--student", "no.safetensors"]))
    assert done.returncode == 2
    if there == "alone.parquet":
        assert "alone.parquet: exists; add --resume to do only" in done.stderr
        assert "or --force to replace it" in done.stderr
    else:
        assert f"{tmp_path}/{there} exists; pass --force to replace it" in done.stderr
    assert _state(tmp_path) == before
    done = sdpose(*words, "--force")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / there).read_bytes() != b"before"


def test_force_begins_parts_again(inputs: Path, tmp_path: Path, sdpose: Sdpose) -> None:
    for name in ("photo.png", "photo.bmp"):
        done = sdpose("predict", inputs / name, "-o", f"{tmp_path}/parts/", "--force")
        assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "parts")["input"].to_pylist() == [str(inputs / "photo.bmp")]
    (tmp_path / "parts" / "mine.txt").write_text("mine")
    done = sdpose("predict", inputs / "photo.bmp", "-o", f"{tmp_path}/parts/", "--force")
    assert done.returncode == 2
    assert "holds mine.txt" in done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("-o {0}/out.txt", "the suffix decides the format; expected .jsonl (JSON lines), .json"),
        ("-o {0}/out", "the suffix decides the format"),
        ("-o {0}/out.csv -o {0}/parts/", "takes Parquet as the only --output"),
        ("-o s3://bucket/out.csv", "takes Parquet as the only --output"),
        ("-o {0}/out.csv --resume", "--resume goes with Parquet as the only --output"),
        ("-o {0}/out.parquet --overlay {0}/x --engine ray", "--engine ray goes with Parquet as"),
        ("-o {0}/out.parquet --resume --force", "--resume keeps what is there"),
        ("--boxes", "--boxes and --thickness go with --overlay"),
    ],
)
def test_what_does_not_go_together(
    words: str, reason: str, inputs: Path, tmp_path: Path, sdpose: Sdpose
) -> None:
    before = _state(tmp_path)
    done = sdpose("predict", inputs / "photo.png", *words.format(tmp_path).split())
    assert done.returncode == 2
    assert reason in " ".join(done.stderr.replace("│", " ").split())
    assert _state(tmp_path) == before


def test_results_are_converted(inputs: Path, tmp_path: Path, sdpose: Sdpose) -> None:
    example = Path(service.__file__).parent / "web" / "example.jpg"
    names = [tmp_path / f"out{suffix}" for suffix in SUFFIXES]
    done = sdpose("predict", example, *(word for name in names for word in ("-o", name)))
    assert done.returncode == 0, done.stderr
    for source in names:
        for suffix in (".jsonl", ".json", ".csv"):
            target = tmp_path / f"{source.suffix[1:]}-{suffix}"
            done = sdpose("convert-results", source, target.with_suffix(suffix))
            assert done.returncode == 0, done.stderr
            expected = (tmp_path / f"out{suffix}").read_text()
            assert target.with_suffix(suffix).read_text() == expected
    done = sdpose("convert-results", names[0], names[1])
    assert "exists; pass --force to replace it" in done.stderr
    done = sdpose("convert-results", inputs / "gone.csv", tmp_path / "x.json")
    assert done.stderr == f"sdpose: {inputs}/gone.csv: no such file or folder\n"
    broken = tmp_path / "broken.jsonl"
    broken.write_text(names[0].read_text() + "{")
    done = sdpose("convert-results", broken, tmp_path / "x.csv")
    assert done.returncode == 2
    assert f"{broken}: line 2 is no JSON" in done.stderr
    assert not list(tmp_path.glob("x.csv*"))


def test_pipes_and_devices(inputs: Path, tmp_path: Path, sdpose: Sdpose) -> None:
    os.mkfifo(tmp_path / "pipe")
    for command in ("predict", "stream"):
        done = sdpose(command, tmp_path / "pipe")
        assert done.returncode == 1
        assert done.stderr.startswith(f"sdpose {command}: {tmp_path}/pipe: expected a file, and ")
    done = sdpose("predict", inputs / "photo.png", "-o", "/dev/stdout")
    assert json.loads(done.stdout)["input"] == str(inputs / "photo.png")
    assert Path("/dev/stdout").is_symlink()
    assert "written: /dev/stdout" in done.stderr
