"""Fitting a score head, mostly as its command does it, on shards of drawn people."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sdpose_core import PoseEstimator
from sdpose_core.checkpoints import find_checkpoint, load_student, read_checkpoint, save_student
from sdpose_core.data.shards import (
    CONTEXT_SIZE,
    VIEW_SIZE,
    CropSample,
    CropSet,
    context_regions,
    load_shards,
)
from sdpose_core.hardware.backends.torch import TorchBackend
from sdpose_core.model import PRESETS, Student, StudentConfig
from sdpose_core.train.scores import chosen_people, main, score_examples
from sdpose_core.types import PUBLISHED_VIEW, Floats
from sdpose_core.vision.geometry import image_to_heatmap
from tests.commands import run_command
from tests.train.lamps import WIDE, LitPixels, lamps
from tests.train.people import draw, pose, write_shards

LEGS = (13, 14, 15, 16)
"""Knees and ankles, which half of the drawn people have not."""


def legless_people(count: int, seed: int = 0) -> list[CropSample]:
    """Every second one ends below the hips, as at a picture's edge, and has no label there."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        box = rng.uniform((45, 55, 105, 170), (80, 90, 145, 210))
        joints = pose(rng, tuple(box))
        picture = draw(joints, CONTEXT_SIZE, rng)
        keypoints = np.concatenate([joints, np.ones((17, 1))], axis=1).astype(np.float32)
        if number % 2:
            picture[int(joints[11:13, 1].max()) + 8 :] = 0
            keypoints[LEGS, :] = 0
        data = cv2.imencode(".webp", picture[:, :, ::-1])[1].tobytes()
        samples.append(CropSample(f"{number:04d}", data, keypoints, "drawn", human=True))
    return samples


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of shards with people drawn, some of them labelled by a machine or elsewhere."""
    drawn = legless_people(24)
    machine = [replace(one, key=f"m{one.key}", human=False) for one in drawn[:3]]
    other = [replace(one, key=f"o{one.key}", source="other") for one in drawn[:2]]
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [*drawn, *machine, *other])
    return str(folder)


def answers(student: str | Path, samples: list[CropSample]) -> tuple[Floats, Floats]:
    """Keypoints (N, 17, 2) and scores (N, 17) of the estimator, with the boxes of the crops."""
    estimator = PoseEstimator.from_pretrained(str(student), "none", "cpu")
    crops = CropSet.from_samples(samples)
    width, height = (side / PUBLISHED_VIEW.padding for side in VIEW_SIZE)
    middle = np.array(CONTEXT_SIZE) / 2
    half = np.array((width, height)) / 2
    box = np.concatenate((middle - half, middle + half))[None]
    images = [crops.decode(i) for i in range(len(crops))]
    found = estimator.estimate(images, [box] * len(images))
    return (
        np.concatenate([one.keypoints for one in found]),
        np.concatenate([one.keypoint_scores for one in found]),
    )


def auroc(right: NDArray[np.floating], wrong: NDArray[np.floating]) -> float:
    """The chance that one of ``right`` is above one of ``wrong``."""
    return float((right[:, None] > wrong[None]).mean())


@pytest.mark.slow("fits a score head, 30 s")
def test_the_command_fits_scores_and_leaves_keypoints_alone(tmp_path: Path, people: str) -> None:
    target = tmp_path / "scored.safetensors"
    words = ["sdpose-lite", people, "--output", str(target), "--sources", "drawn", "--views", "4"]
    done = run_command(sys.executable, "-m", "sdpose_core.train.scores", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{target}: scores fitted on 24 people\n"

    saved, start = read_checkpoint(target), find_checkpoint("sdpose-lite")
    assert saved.config == start.config
    assert saved.state.keys() == start.state.keys()
    changed = {key for key in saved.state if not torch.equal(saved.state[key], start.state[key])}
    assert {key.split(".")[0] for key in changed} == {"scores", "people"}
    assert load_student(target).scores is not None
    # Facts that still hold stay, those of the old scores do not.
    assert saved.training["score_head"] == "fitted on 24 people, 4 views each"
    assert saved.training["person_head"] == "fitted on 24 people, 4 views each"
    assert saved.training["licence"] == start.training["licence"]
    assert not saved.training.keys() & {"evaluation", "scores"}

    fresh = legless_people(24, seed=1)
    labelled = np.stack([one.keypoints[:, 2] > 0 for one in fresh])
    before, old = answers("sdpose-lite", fresh)
    after, new = answers(target, fresh)
    np.testing.assert_allclose(after, before, atol=1e-3)  # another graph, other roundings
    assert new[labelled].mean() > 2 * new[~labelled].mean()
    # Not by the joint alone, but by what is seen of the person: legs against legs.
    legs, there = new[:, LEGS], labelled[:, LEGS]
    assert legs[there].mean() > 3 * legs[~there].mean()
    assert auroc(legs[there], legs[~there]) > 0.85
    assert auroc(legs[there], legs[~there]) > auroc(old[:, LEGS][there], old[:, LEGS][~there])


def test_a_student_without_a_head_gets_one_in_its_own_precision(
    tmp_path: Path, people: str
) -> None:
    """Weights in float32 stay so, to the bit: rounded ones would answer with other keypoints."""
    bare = Student(replace(PRESETS["sdpose-t"], depth=1))
    start, target = tmp_path / "bare.safetensors", tmp_path / "scored.safetensors"
    save_student(bare, start, {"scores": {"dev/oks_256x192": 0.5}}, dtype=None)
    assert main([str(start), people, "--output", str(target), "--views", "1"]) == 0
    saved = read_checkpoint(target)
    assert saved.config == replace(bare.config, score_width=64, person_width=16)
    for key, value in bare.state_dict().items():
        assert torch.equal(saved.state[key], value)
    # A run's own numbers are of keypoints.
    assert saved.training["scores"] == {"dev/oks_256x192": 0.5}
    assert saved.training["score_head"] == "fitted on 26 people, 1 views each"


def test_scores_of_people_alone_are_fitted_to_the_joints_scores_there_are(
    tmp_path: Path, people: str
) -> None:
    target = tmp_path / "ranked.safetensors"
    words = ["sdpose-lite", people, "--output", str(target), "--views", "1", "--keep-joints"]
    assert main(words) == 0
    saved, start = read_checkpoint(target), find_checkpoint("sdpose-lite")
    changed = {key for key in saved.state if not torch.equal(saved.state[key], start.state[key])}
    assert {key.split(".")[0] for key in changed} == {"people"}
    assert saved.training["evaluation"] == start.training["evaluation"]
    bare = tmp_path / "bare.safetensors"
    save_student(Student(replace(PRESETS["sdpose-t"], depth=1)), bare)
    assert main([str(bare), *words[1:]]) == 2


@pytest.mark.parametrize("config", [PRESETS["sdpose-t"], WIDE], ids=["3:4", "1:1"])
def test_joints_are_where_they_are_in_every_view(config: StudentConfig) -> None:
    """A network that is right in every view, mirrored and jittered ones too, has similarity 1."""
    pictures, joints = lamps(5)
    keypoints = np.concatenate([joints, np.ones((5, 17, 1), np.float32)], axis=2)
    keypoints[1, 4] = 0
    images = tuple(cv2.imencode(".png", one[:, :, ::-1])[1].tobytes() for one in pictures)
    crops = CropSet(images, keypoints, ("lamps",) * 5, np.ones(5, bool))
    backend = TorchBackend(LitPixels(config))
    examples = score_examples(backend, config, crops, views=4)
    assert examples.points.shape == (20, 17, 2)
    assert examples.similarity[examples.labelled > 0].min() > 0.95
    # The first view is the one that the student serves with, at its own sizes.
    served = image_to_heatmap(joints, context_regions(5, CONTEXT_SIZE, config.view))
    assert np.abs(examples.points[:5].numpy() - served).max() < 0.5
    # The right eye in half of the views, its mirror image in the others.
    missing = (examples.labelled == 0).nonzero().tolist()
    assert missing == [[1, 4], [6, 3], [11, 4], [16, 3]]
    # Jitter moves what the student sees, so that the head meets more places than the first view's.
    assert (examples.points[0] - examples.points[10]).abs().max() > 0.5
    again = score_examples(backend, config, crops, views=4)
    assert torch.equal(again.points, examples.points)


def test_only_people_labelled_by_hand_are_taken(people: str) -> None:
    crops = load_shards([people])
    assert len(crops) == 29
    assert len(chosen_people(crops, [])) == 26
    assert chosen_people(crops, ["other"]).sources == ("other", "other")
    with pytest.raises(ValueError, match="labelled by a machine"):
        chosen_people(crops.select(range(24, 27)), [])


STUDENTS: dict[str, tuple[Callable[[Path], str], str]] = {
    "no file": (lambda folder: str(folder / "no.pth"), "no.pth: no such file"),
    "no weights": (lambda folder: "sdpose-t", "sdpose-t: this package has no trained weights"),
    "unknown": (lambda folder: "sdpose-x", "unknown student 'sdpose-x'"),
}


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command says when it ends with status 2, in one line and without a traceback."""
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("python -m sdpose_core.train.scores: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_student_that_cannot_be_used_is_named(
    kind: str, tmp_path: Path, people: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = STUDENTS[kind]
    target = tmp_path / "out.safetensors"
    assert expected in refused(capsys, make(tmp_path), people, "--output", target)
    assert not target.exists()


def test_people_that_cannot_be_used_are_named(
    tmp_path: Path, people: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.safetensors"

    def told(folder: object, *options: object) -> str:
        return refused(capsys, "sdpose-lite", folder, "--output", target, *options)

    said = told(people, "--sources", "drawn", "coco", "lsp")
    assert "no person of source coco, lsp: the shards hold drawn, other" in said
    assert "no shards match" in told(tmp_path / "nowhere")
    assert "views: expected at least 1, got 0" in told(people, "--views", 0)
    whole = [replace(one, source="whole") for one in legless_people(4)[::2]]
    write_shards(tmp_path / "whole", whole)
    said = told(tmp_path / "whole")
    assert "every joint of the 2 people is labelled" in said
    bare = [replace(one, keypoints=0 * one.keypoints) for one in whole]
    write_shards(tmp_path / "bare", bare)
    assert "no joint of the 2 people is labelled" in told(tmp_path / "bare")
    torn = tmp_path / "torn.tar"
    torn.write_bytes(next(Path(people).glob("*.tar")).read_bytes()[:1200])
    assert "torn.tar: not a whole tar file" in told(torn)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("no folder/out.safetensors", "expected a file in a folder that exists"),
        ("folder.safetensors", "expected a file in a folder that exists"),
        ("out.pth", "the output's name must end in .safetensors"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(
    name: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    target = tmp_path / name
    said = refused(capsys, "sdpose-lite", "nowhere", "--output", target)  # shards: not looked at
    assert f"{target}: " in said
    assert expected in said


def test_a_disk_that_fails_is_told_in_one_sentence(
    tmp_path: Path, people: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sdpose_core.checkpoints.files.os.fsync", full)
    target = tmp_path / "out.safetensors"
    said = refused(capsys, "sdpose-lite", people, "--output", target, "--views", 1)
    assert f"{target}: cannot be written ([Errno 28] No space left on device)" in said
    assert list(tmp_path.iterdir()) == []
