"""What every command does with its inputs and with another run in the same place: nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sdpose_core.checkpoints import trained_path
from sdpose_core.files.outputs import only_run
from tests.cli.conftest import Done
from tests.commands import SDPOSE, run_command
from tests.pictures import corners, encoded
from tests.train.people import coco_folder

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
        ("odd.jpg.part", "PNG"),
    ):
        (folder / name).write_bytes(encoded(corners(48), kind))
    (folder / "list.txt").write_text(str(folder / "photo.png"))
    for name in ("net.safetensors", "net.torchscript", "net.bin"):
        shutil.copy(trained_path("sdpose-lite"), folder / name)
    for name in ("best.safetensors", "person.safetensors"):
        os.link(folder / "net.safetensors", folder / name)
    (folder / "config.json").write_text('preset = "lite-cpu"\n')
    (folder / "data.yaml").write_text("names: [person]\n")
    return folder


def _state(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


OVER_INPUTS = {
    "drawing": "predict {0}/photo.bmp {0}/photo.png --overlay {0}",
    "drawing over what may be an original": "predict {0}/photo.tif --overlay {0}",
    "drawing through its own name": "predict {0}/photo.png --overlay {0}",
    "rows": "predict {0}/photo.png -o {0}/photo.png",
    "rows as Parquet": "predict {0}/photo.png -f parquet -o {0}/photo.png",
    "rows before they are complete": "predict {0}/odd.jpg.part -o {0}/odd.jpg",
    "rows over the list": "predict --list {0}/list.txt -o {0}/list.txt",
    "rows over the student": "predict {0}/photo.png --student {0}/net.bin -o {0}/net.bin",
    "rows over the detector": "predict {0}/photo.png --detector {0}/net.bin -o {0}/net.bin",
    "stream's drawing": "stream {0}/photo.png --overlay {0}/photo.png",
    "stream's lines": "stream {0}/photo.png --json {0}/photo.png",
    "stream's drawing over its lines": "stream {0}/photo.png --json {0}/x --overlay {0}/x",
    "export": "export --student {0}/net.torchscript --output {0}/net.torchscript --force",
    "export's weights": "export --student {0}/net.bin --output {0}/net.xml --force",
    "convert": "convert {0}/net.safetensors {0}/best.safetensors --force",
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
    (annotations,) = (path.name for path in inputs.glob("*.json") if path.name != "config.json")
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
    with (inputs / "photo.png").open("rb") as photo:
        done = run_command(*SDPOSE, "predict", "-", "-o", inputs / "photo.png", stdin=photo)
    assert done.returncode == 2
    assert "would replace" in done.stderr
    assert _state(inputs) == before


IN_USE = {
    "jsonl": ("predict {0}/photo.png -o {1}", False),
    "coco": ("predict {0}/photo.png -o {1} -f coco", False),
    "csv": ("predict {0}/photo.png -o {1} -f csv", False),
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
    (annotations,) = (path.name for path in inputs.glob("*.json") if path.name != "config.json")
    place = tmp_path / ("out" if folder else "out.onnx")
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
    ("name", "first"), [("OUT.PARQUET", b"PAR1"), ("out.CSV", b"input,frame"), ("out.txt", b'{"in')]
)
def test_the_ending_says_the_format_in_any_case(
    name: str, first: bytes, inputs: Path, tmp_path: Path, sdpose: Sdpose
) -> None:
    done = sdpose("predict", inputs / "photo.png", "-o", tmp_path / name)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name).read_bytes().startswith(first)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in", name])


def test_pipes_and_devices(inputs: Path, tmp_path: Path, sdpose: Sdpose) -> None:
    os.mkfifo(tmp_path / "pipe")
    for command in ("predict", "stream"):
        done = sdpose(command, tmp_path / "pipe")
        assert done.returncode == 1
        assert done.stderr.startswith(f"sdpose {command}: {tmp_path}/pipe: expected a file, and ")
    done = sdpose("predict", inputs / "photo.png", "-o", "/dev/stdout")
    assert json.loads(done.stdout)["input"] == str(inputs / "photo.png")
    assert Path("/dev/stdout").is_symlink()
