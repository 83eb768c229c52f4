"""Checkpoint files: round trips, published files, damaged and foreign ones."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from sdpose_core.checkpoints import (
    DEFAULT_STUDENT,
    CheckpointError,
    load_student,
    read_checkpoint,
    save_student,
    training_facts,
)
from sdpose_core.checkpoints.official import to_ours
from sdpose_core.embedded import embedded_path
from sdpose_core.model import PAPER, PRESETS, Student
from tests.core.parity import facts, network_input, official_state, recorded


class Foreign:
    """Stands for an object of a library that a published file carries in its ``meta``."""

    def __init__(self) -> None:
        self.name = "x"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("students") / "t.safetensors"
    save_student(Student(PRESETS["sdpose-t"]), path, {"epochs": 3})
    return path


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "misleading-name-s-v2.pth"
    meta = {"env_info": Foreign(), "epoch": 210}
    torch.save({"meta": meta, "state_dict": official_state(PRESETS["sdpose-t"])}, path)
    return path


def test_a_saved_student_comes_back(saved: Path) -> None:
    checkpoint = read_checkpoint(saved)
    assert checkpoint.config == PRESETS["sdpose-t"]
    assert checkpoint.training == {"epochs": 3}
    student = load_student(saved)
    assert not student.training
    assert all(p.dtype == torch.float32 for p in student.parameters())
    assert training_facts(saved) == {"epochs": 3}


def test_full_precision_is_exact(tmp_path: Path) -> None:
    student = Student(PRESETS["sdpose-t"])
    save_student(student, tmp_path / "t.safetensors", dtype=None)
    for key, value in load_student(tmp_path / "t.safetensors").state_dict().items():
        assert torch.equal(value, student.state_dict()[key])


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    student = Student(replace(PRESETS["sdpose-t"], depth=1))
    for target in (tmp_path / "nowhere" / "t.safetensors", folder):
        with pytest.raises(CheckpointError) as caught:
            save_student(student, target)
        assert str(caught.value).startswith(f"{target}: cannot be written (")
    assert list(tmp_path.iterdir()) == [folder]


def test_an_official_file_loads_in_spite_of_foreign_objects(official: Path) -> None:
    student = load_student(official)
    assert student.config == PRESETS["sdpose-t"]
    with torch.inference_mode():
        output = student.cycles(student.backbone(network_input()), 1)[0].heatmaps
    expected = facts("sdpose-t")["outputs"][0]["heatmaps"]["values"]
    assert recorded(output) == pytest.approx(expected, abs=1e-4)


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    path = tmp_path / "evil.pth"
    torch.save({"meta": Evil(), "state_dict": official_state(PRESETS["sdpose-t"])}, path)
    with contextlib.suppress(CheckpointError):
        load_student(path)
    assert not (tmp_path / "owned").exists()


def test_keys_that_do_not_fit_are_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_student(_altered(saved, tmp_path / "a.safetensors", drop="head.3.bias"))
    assert "1 keys are missing (head.3.bias)" in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        load_student(_altered(saved, tmp_path / "b.safetensors", add={"extra": torch.zeros(1)}))
    assert "1 keys are unexpected (extra)" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"head.3.bias is \(5,\), expected \(3072,\)"):
        load_student(
            _altered(saved, tmp_path / "c.safetensors", add={"head.3.bias": torch.zeros(5)})
        )
    nan = {"head.3.bias": torch.full((3072,), torch.nan)}
    with pytest.raises(CheckpointError, match="not finite"):
        load_student(_altered(saved, tmp_path / "d.safetensors", add=nan))


def _altered(
    source: Path, target: Path, drop: str = "", add: dict[str, torch.Tensor] | None = None
) -> Path:
    state = {key: value for key, value in load_file(source).items() if key != drop} | (add or {})
    config = json.dumps(PRESETS["sdpose-t"].to_dict())
    names = json.dumps(json.loads(_metadata(source)["keypoints"]))
    description = {"format": "sdpose-student-1", "config": config}
    save_file(state, target, metadata={**description, "keypoints": names, "training": "{}"})
    return target


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def _saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello", "world")
    return file.getvalue()


BAD: dict[str, Callable[[Path, Path], bytes]] = {
    "cut.safetensors": lambda saved, _: saved.read_bytes()[:100_000],
    "cut.pth": lambda _, official: official.read_bytes()[:100_000],
    "text.safetensors": lambda *_: b"this is not a checkpoint",
    "text.pth": lambda *_: b"this is not a checkpoint",
    "empty.safetensors": lambda *_: b"",
    "holed.safetensors": lambda saved, _: saved.read_bytes()[:8] + bytes(64),
    "empty.pth": lambda *_: b"",
    "foreign.safetensors": lambda *_: save({"weight": torch.zeros(2)}),
    "foreign.pth": lambda *_: _saved({"state_dict": {"conv.weight": torch.zeros(1)}}),
    "no-state.pth": lambda *_: _saved([1, 2, 3]),
    "pickle.pth": lambda *_: pickle.dumps({"state_dict": 5}),
    "zip.pth": lambda *_: _zipped(),
}


@pytest.mark.parametrize("name", [*BAD, "missing.safetensors"])
def test_a_bad_file_gives_one_sentence(
    name: str, saved: Path, official: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    if name in BAD:
        path.write_bytes(BAD[name](saved, official))
    with pytest.raises(CheckpointError) as caught:
        load_student(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("config", []),
        ("config", 5),
        ("config", {"name": "x", "patch_size": 4}),
        ("config", {"name": "x", "patch_size": [0, 3]}),
        ("config", {"name": "x", "heads": 0}),
        ("config", {"name": "x", "embed_dim": "wide"}),
        ("config", {"name": "x", "mlp_dim": 1.5}),
        ("config", {"name": "x", "keypoints": -1}),
        ("config", {"name": "x", "backbone": "other"}),
        ("keypoints", 17),
        ("keypoints", [1, 2, 3]),
        ("training", ["epochs", 3]),
        ("training", None),
    ],
)
def test_a_damaged_description_gives_one_sentence(
    field: str, value: object, saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bad.safetensors"
    save_file(load_file(saved), path, metadata=_metadata(saved) | {field: json.dumps(value)})
    with pytest.raises(CheckpointError) as caught:
        load_student(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["patch_embedding.weight", "backbone.layer1.0.conv1.weight"])
@pytest.mark.parametrize("shape", [(), (192,), (2, 3, 4)])
def test_an_official_file_with_odd_shapes_gives_one_sentence(
    key: str, shape: tuple[int, ...], official: Path, tmp_path: Path
) -> None:
    ours = {to_ours(name): name for name in official_state(PRESETS["sdpose-t"])}
    state = official_state(PRESETS["sdpose-t"]) | {ours[key]: torch.zeros(shape)}
    torch.save({"state_dict": state}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="not an SDPose student: a patch embedding of"):
        load_student(tmp_path / "bad.pth")


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"sdpose-lite"}))
def test_a_preset_without_weights_refuses_unless_asked(name: str) -> None:
    assert embedded_path(name) is None
    with pytest.raises(CheckpointError) as caught:
        load_student(name)
    said = str(caught.value)
    # What is wrong, what there is, what to do; the published files are those of the paper's.
    assert said.startswith(
        f"{name}: this package has no trained weights for it, only for sdpose-lite; "
        "train it (sdpose train) and pass the path of its checkpoint"
    )
    assert ("download the published checkpoint" in said) == (name in PAPER)
    assert "\n" not in said
    assert training_facts(name) == {}
    assert load_student(name, allow_untrained=True).config == PRESETS[name]


def test_an_unknown_student_is_told_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="unknown student 'sdpose-x': expected one of sdpose"):
        load_student("sdpose-x")


def test_the_embedded_student_describes_itself() -> None:
    path = embedded_path(DEFAULT_STUDENT)
    assert path is not None
    assert path.stat().st_size < 4_000_000
    training = read_checkpoint(path).training
    assert training["licence"].startswith("Apache-2.0")
    assert training["evaluation"]["ap"] == 0.689
