"""Training, shards and scores for keypoints that are not COCO's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdpose_core.checkpoints import load_student, save_student
from sdpose_core.data.coco import load_coco
from sdpose_core.data.coco_file import read_coco
from sdpose_core.data.packing import pack_new
from sdpose_core.data.shards import load_shards
from sdpose_core.skeleton import COCO17, Skeleton, SkeletonError
from sdpose_core.train.loop.run import prepare
from sdpose_core.train.transfer import with_skeleton
from tests.train.people import coco_folder
from tests.train.test_training import QUICK

BODY = Skeleton.make(
    "body",
    [*COCO17.keypoints[:4:-1], "neck"],
    edges=[("neck", "left_hip")],
    sigmas={"neck": 0.05},
)
"""12 of COCO's joints backwards, and one that COCO lacks."""


def body_folder(folder: Path) -> tuple[Path, Path]:
    """A COCO set of drawn people with the joints of ``BODY``."""
    path, images = coco_folder(folder)
    content = json.loads(path.read_text())
    for person in content["annotations"]:
        joints = np.array(person["keypoints"]).reshape(17, 3)
        neck = [*joints[5:7, :2].mean(axis=0), 2]
        person["keypoints"] = np.concatenate([joints[:4:-1], [neck]]).reshape(-1).tolist()
        person["num_keypoints"] = 13
    content["categories"] = [
        {"id": 1, "name": "person", "keypoints": list(BODY.keypoints), "sigmas": list(BODY.sigmas)}
    ]
    path.write_text(json.dumps(content))
    return path, images


def test_a_file_brings_its_own_skeleton(tmp_path: Path) -> None:
    path, images = body_folder(tmp_path)
    own = read_coco(path, None).skeleton
    assert (own.keypoints, own.sigmas, own.mirror) == (BODY.keypoints, BODY.sigmas, BODY.mirror)
    [first, *_] = load_coco(path, images, own)
    assert first.people[0].keypoints.shape == (13, 3)
    backwards = Skeleton.make("backwards", BODY.keypoints[::-1])
    [other, *_] = load_coco(path, images, backwards)
    np.testing.assert_array_equal(other.people[0].keypoints, first.people[0].keypoints[::-1])
    with pytest.raises(SkeletonError, match=r"number 13, 'neck', is none of coco17's"):
        load_coco(path, images)


def test_a_student_of_another_skeleton_learns_from_its_shards(tmp_path: Path) -> None:
    path, images = body_folder(tmp_path)
    pack_new(load_coco(path, images, None), tmp_path / "shards")
    crops = load_shards([tmp_path / "shards"])
    assert crops.names == BODY.keypoints
    with pytest.raises(SkeletonError, match="the shards: number 13, 'neck'"):
        crops.ordered(COCO17)
    (tmp_path / "body.toml").write_text(
        f"keypoints = {json.dumps(BODY.keypoints[::-1])}\nsigmas = {{neck = 0.05}}\n"
    )
    data = replace(
        QUICK.data,
        shards=(str(tmp_path / "shards"),),
        dev_annotations=str(path),
        dev_images=str(images),
    )
    config = replace(QUICK, data=data, student="sdpose-lite", skeleton=str(tmp_path / "body.toml"))
    run = tmp_path / "run"
    prepare(config, run).run(stop_after_steps=2)
    prepare(config, run, resume=True).run()
    trained = load_student(run / "best.safetensors")
    assert trained.config.skeleton.keypoints == BODY.keypoints[::-1]
    assert trained(torch.zeros(1, 3, 256, 192)).shape == (1, 13, 64, 48)


def test_known_joints_carry_over_and_new_ones_begin_as_the_mean(tmp_path: Path) -> None:
    shipped = load_student("sdpose-lite")
    made, carried = with_skeleton(shipped, BODY)
    assert carried == list(BODY.keypoints[:-1])
    image = torch.rand(1, 3, 256, 192) * 255
    with torch.inference_mode():
        before, after = shipped(image), made(image)
    torch.testing.assert_close(after[:, :12], before[:, list(range(16, 4, -1))])
    torch.testing.assert_close(after[:, 12], before.mean(dim=1))
    save_student(made, tmp_path / "body.safetensors", dtype=None)
    assert load_student(tmp_path / "body.safetensors").config == made.config
