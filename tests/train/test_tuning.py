"""A run on a user's labels: what is trained, what is kept, and how it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from sdpose_core.checkpoints import load_student, training_facts
from sdpose_core.data.batches import load_batch
from sdpose_core.data.coco import load_coco
from sdpose_core.data.shards import CropSet
from sdpose_core.estimator import PoseEstimator
from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.train.loop.feed import draw_inputs, render_inputs
from sdpose_core.train.loop.kept import KeptSamples
from sdpose_core.train.loop.run import prepare
from sdpose_core.train.objective.objective import Objective, cycle_outputs
from sdpose_core.train.recipe.config import StageConfig, TrainConfig
from sdpose_core.train.recipe.presets import preset_config
from sdpose_core.train.transfer import with_skeleton
from sdpose_core.train.tuning.finish import finish
from sdpose_core.train.tuning.tune import begin
from tests.train.people import changing, coco_folder, crop_set
from tests.train.test_other_skeletons import BODY, body_folder


def kept_config(views: int = 6) -> TrainConfig:
    config = preset_config("lite")
    data = replace(config.data, kept_views=views, workers=0)
    return replace(config, data=data, start="sdpose-lite", precision="32-true", devices=1)


def kept_samples(crops: CropSet, views: int = 6) -> KeptSamples:
    student = load_student("sdpose-lite")
    student.freeze_early()
    return KeptSamples(kept_config(views), crops, Fabric(accelerator="cpu", devices=1), student)


def test_kept_views_are_what_the_whole_student_sees(tmp_path: Path) -> None:
    samples = kept_samples(crop_set(4))
    inputs = next(samples.inputs(StageConfig(batch=3, steps=1), 0, 0))
    assert len(inputs.missing) == 3
    maps, target, weights = samples.render(inputs)
    for number, row in enumerate(inputs.rows):
        one = load_batch(samples.crops, samples.stream.take(int(row), 1))
        student = samples.student.config
        drawn = draw_inputs(one, one.images.shape[2:0:-1], samples.config, student, int(row), 0)
        images, wanted, weight = render_inputs(drawn, student.view)
        torch.testing.assert_close(target[number : number + 1], wanted)
        torch.testing.assert_close(weights[number : number + 1], weight)
        with torch.no_grad():
            whole = samples.student(images)
            late = cycle_outputs(samples.student, [each[number : number + 1] for each in maps])
        torch.testing.assert_close(late[-1].heatmaps, whole, atol=5e-3, rtol=0)


def test_each_view_is_computed_once_and_again_after_a_resume() -> None:
    samples = kept_samples(crop_set(4))
    stage = StageConfig(batch=3, steps=1)
    batches = samples.inputs(stage, 0, 0)
    first = [samples.render(inputs) and inputs for inputs in (next(batches), next(batches))]
    assert sorted(np.concatenate([one.rows for one in first])) == list(range(6))
    again = next(samples.inputs(stage, 6, 2))
    assert len(again.missing) == 0
    before = {
        int(row): maps for row, maps in zip(again.rows, samples.render(again)[0][0], strict=True)
    }
    resumed = kept_samples(crop_set(4))
    inputs = next(resumed.inputs(stage, 6, 2))
    assert list(inputs.rows) == list(again.rows)
    assert len(inputs.missing) == 3
    for row, maps in zip(inputs.rows, resumed.render(inputs)[0][0], strict=True):
        torch.testing.assert_close(maps, before[int(row)], atol=1e-2, rtol=1e-3)


def test_only_the_last_stage_is_trained_on_kept_views() -> None:
    student = load_student("sdpose-lite")
    student.freeze_early()
    trained = {name.split(".")[1] for name, p in student.named_parameters() if p.requires_grad}
    assert trained == {"stages", "project", "final"}
    kept = [name for name, p in student.named_parameters() if not p.requires_grad]
    assert any(name.startswith("backbone.stages.1.") for name in kept)
    assert not any(name.startswith("backbone.stages.2.") for name in kept)


def test_keypoints_without_a_label_learn_the_answer_of_the_start() -> None:
    student, start = load_student("sdpose-lite"), load_student("sdpose-lite")
    with torch.no_grad():
        student.backbone.final.bias += 0.1  # type: ignore[operator]
    config = preset_config("lite").loss
    images = torch.rand(2, 3, 256, 192) * 255
    target, weights = torch.zeros(2, 17, 64, 48), torch.zeros(2, 17)
    assert Objective(student, config)(images, target, weights)["heatmap_0"] == 0
    loss = Objective(student, config, start, [3, 4])(images, target, weights)["heatmap_0"]
    # The mean over 17 joints of the squared error 0.01 of two.
    assert float(loss.detach()) == pytest.approx(0.01 * 2 / 17, rel=1e-3)
    assert not target.any()
    assert not weights.any()


def test_score_heads_carry_over_with_their_joints() -> None:
    shipped = load_student("sdpose-lite")
    order = list(np.random.default_rng(0).permutation(17))
    turned = Skeleton.make("turned", [COCO17.keypoints[i] for i in order])
    made, _ = with_skeleton(shipped, turned)
    points, peaks = torch.rand(5, 17, 2) * 40, torch.rand(5, 17)
    assert shipped.scores is not None
    assert made.scores is not None
    expected = shipped.scores(points, peaks)
    for own, other in zip(made.scores(points[:, order], peaks[:, order]), expected, strict=True):
        torch.testing.assert_close(own, other[:, order])
    assert made.people is not None
    some, _ = with_skeleton(shipped, Skeleton.make("limbs", COCO17.keypoints[5:]))
    assert some.scores is not None
    assert some.scores(points[:, 5:], peaks[:, 5:])[0].shape == (5, 12)
    assert some.people is None
    assert with_skeleton(shipped, BODY)[0].scores is None


def silent(line: str) -> None:
    del line


def quick(config: TrainConfig, steps: int, rate: float = 3e-4) -> TrainConfig:
    stage = replace(
        config.stages[0], steps=steps, minutes=None, epochs=None, rate=rate, warmup_steps=0
    )
    return replace(config, stages=(stage,), threads=2)


def test_from_labels_of_other_keypoints_to_a_student_that_answers(tmp_path: Path) -> None:
    path, images = body_folder(tmp_path)
    folder, lines = tmp_path / "run", []
    config = begin(path, images, folder, start="sdpose-lite", say=lines.append)
    text = "\n".join(lines)
    assert "8 people with 13 keypoints in 4 images" in text
    assert "12 keypoints carry over; new: neck" in text
    assert "the last stage and the heads on the CPU" in text
    trainer = prepare(quick(config, 30), folder, say=silent)
    trainer.run(stop_after_steps=10)
    assert not trainer.finished
    assert training_facts(folder / "best.safetensors")["scores"]["dev/ap"] >= 0
    trainer = prepare(quick(config, 30), folder, resume=True, say=silent)
    trainer.run()
    assert trainer.finished
    report = finish(config, folder, trainer.samples.crops, silent)
    assert report[2].startswith("2 held-out people of 1 images, given boxes: AP ")
    [neck] = [line for line in report if line.startswith("| neck ")]
    _, _, _, before, after, _, _ = (part.strip() for part in neck.split("|"))
    assert float(after) > float(before)
    assert [line for line in report if "sdpose serve" in line]
    assert (folder / "report.md").read_text().splitlines() == report
    assert (folder / "worst.jpg").stat().st_size > 1000
    assert {one.name for one in folder.glob("*.safetensors")} == {
        "best.safetensors", "last.safetensors", "start.safetensors"
    }  # fmt: skip
    estimator = PoseEstimator.from_pretrained(folder / "best.safetensors", detector="none")
    [image] = [one for one in load_coco(folder / "held-out.json", images, BODY) if one.people]
    [poses] = estimator.estimate([image.read()], [np.stack([p.box for p in image.people])])
    assert poses.skeleton.keypoints == BODY.keypoints


@pytest.mark.parametrize("heads", [True, False])
def test_a_run_never_ends_worse_than_it_began(tmp_path: Path, heads: bool) -> None:
    """Steps so long that they destroy the student: what comes out is the start."""
    path, images = coco_folder(tmp_path) if heads else body_folder(tmp_path)
    folder = tmp_path / "run"
    config = begin(path, images, folder, start="sdpose-lite", say=silent)
    wild = replace(quick(config, 4, rate=0.03), optimiser=replace(config.optimiser, clip=0.0))
    trainer = prepare(wild, folder, say=silent)
    trainer.run()
    scores = [(one["dev/ap"], one["dev/oks"]) for one in trainer.history]
    assert scores[-1] < scores[0]
    report = finish(wild, folder, trainer.samples.crops, silent)
    start, best = (load_student(folder / f"{name}.safetensors") for name in ("start", "best"))
    # The drawn people have no labels for most of what they would need: the start wins.
    for key, value in start.state_dict().items():
        torch.testing.assert_close(best.state_dict()[key], value, atol=2e-3, rtol=2e-3)
    assert start.config == best.config
    assert report[2].startswith("2 held-out people")


def test_labels_of_the_students_own_keypoints_in_another_order(tmp_path: Path) -> None:
    path, images = coco_folder(tmp_path)
    names = list(COCO17.keypoints)
    with changing(path) as content:
        content["categories"] = [{"id": 1, "name": "person", "keypoints": names[::-1]}]
        for person in content["annotations"]:
            joints = np.array(person["keypoints"]).reshape(17, 3)[::-1]
            person["keypoints"] = joints.reshape(-1).tolist()
    folder = tmp_path / "run"
    begin(path, images, folder, start="sdpose-lite", say=silent)
    start = load_student(folder / "start.safetensors")
    assert start.config == load_student("sdpose-lite").config
    assert json.loads((folder / "train.json").read_text())["categories"][0]["keypoints"] == names


def test_all_layers_and_a_length_as_asked(tmp_path: Path) -> None:
    path, images = coco_folder(tmp_path)
    config = begin(
        path, images, tmp_path / "run", start="sdpose-lite", minutes=7, every_layer=True, say=silent
    )
    assert (config.data.kept_views, config.stages[0].minutes) == (0, 7)


def test_nothing_is_written_for_labels_that_cannot_be_used(tmp_path: Path) -> None:
    path, images = coco_folder(tmp_path)
    with changing(path) as content:
        for person in content["annotations"]:
            person["iscrowd"] = 1
    with pytest.raises(ValueError, match="no person with a labelled keypoint"):
        begin(path, images, tmp_path / "run", start="sdpose-lite", say=silent)
    assert not (tmp_path / "run").exists()
