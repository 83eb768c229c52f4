"""Shards: what is written comes back, here and through the webdataset library."""

from __future__ import annotations

import gzip
import io
import json
import math
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sdpose_core.data.batches import load_batch
from sdpose_core.data.coco import coco_samples, context_crop, load_coco
from sdpose_core.data.shards import CropSet, ShardWriter, find_shards, load_shards, read_shard
from tests.train.people import changing, coco_folder, crop_samples, write_shards


def write_tar(path: Path, *members: tuple[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_written_shards_come_back(tmp_path: Path) -> None:
    samples = crop_samples(5)
    paths = write_shards(tmp_path, samples, per_shard=2)
    assert [p.name for p in paths] == [f"pose-{i:04d}.tar" for i in range(3)]
    assert find_shards([tmp_path]) == paths
    crops = load_shards([tmp_path])
    assert crops.images == tuple(s.image for s in samples)
    assert crops.sources == ("a", "b", "a", "b", "a")
    assert crops.human.tolist() == [False, True, True, False, True]
    np.testing.assert_allclose(crops.keypoints, np.stack([s.keypoints for s in samples]), atol=5e-4)


def test_an_exception_leaves_whole_shards_only(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with ShardWriter(tmp_path, per_shard=2) as writer:
            for sample in crop_samples(3):
                writer.write(sample)
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        write_and_fail()
    assert [p.name for p in tmp_path.iterdir()] == ["pose-0000.tar"]
    assert len(load_shards([tmp_path])) == 2


def test_shards_are_webdataset(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, crop_samples(3))
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    with paths[0].open("rb") as file:
        members = ({**m, "__url__": "here"} for m in tar_file_iterator(file))
        read = list(group_by_keys(members))
    assert [r["__key__"] for r in read] == ["0000", "0001", "0002"]
    assert read[1]["webp"] == crop_samples(3)[1].image
    assert json.loads(read[1]["json"])["image"] == "1.jpg"


def test_gzipped_shard_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    sample = crop_samples(1)[0]
    text = json.dumps({"keypoints": sample.keypoints.tolist(), "label": "pseudo"}).encode()
    write_tar(path, ("x.webp", sample.image), ("x.json", text))
    (read,) = read_shard(path)
    assert read.human is False
    assert read.image == sample.image


def test_incomplete_sample_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, ("lonely.webp", b"abc"))
    with pytest.raises(ValueError, match="lonely"):
        list(read_shard(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "x: no keypoints can be read"),
        ("{}", "x: no keypoints can be read .'keypoints'"),
        (json.dumps({"keypoints": [[0, 0, math.nan]] * 17}), "x: keypoints are not finite"),
        (json.dumps({"keypoints": [[0, 0, 2]] * 17}), "x: confidences must be 0 to 1, got 2 to 2"),
        (json.dumps({"keypoints": [[0, 0, -1]] * 17}), "x: confidences must be 0 to 1"),
    ],
)
def test_damaged_labels_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, ("x.webp", b"abc"), ("x.json", text.encode()))
    with pytest.raises(ValueError, match=r"a\.tar: " + said):
        list(read_shard(path))


def test_other_members_of_a_sample_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    sample = crop_samples(1)[0]
    text = json.dumps({"keypoints": sample.keypoints.tolist()}).encode()
    write_tar(path, ("x.webp", sample.image), ("x.json", text), ("x.cls", b"1"))
    assert [read.key for read in read_shard(path)] == ["x"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_shard_that_breaks_off_is_named(tmp_path: Path, packed: bool) -> None:
    paths = write_shards(tmp_path, crop_samples(1))
    content = paths[0].read_bytes()[:1200]
    path = tmp_path / "broken.tar.gz"
    path.write_bytes(gzip.compress(content)[:-200] if packed else content)
    with pytest.raises(ValueError, match=r"broken\.tar\.gz: not a whole tar file"):
        list(read_shard(path))


def test_pictures_of_two_sizes_are_told_before_training(tmp_path: Path) -> None:
    small = crop_samples(2)
    wide = cv2.imencode(".webp", np.zeros((516, 496, 3), np.uint8))[1].tobytes()
    for name, samples in (("a", small), ("b", [replace(small[0], image=wide)])):
        write_shards(tmp_path, samples, prefix=name)
    with pytest.raises(ValueError, match=r"b-0000\.tar holds images of \(496, 516\).*\(269, 358\)"):
        load_shards([tmp_path])
    mixed = CropSet.from_samples([*small, replace(small[0], image=wide, source="other")])
    with pytest.raises(ValueError, match="sample 2 of source 'other': image of shape"):
        load_batch(mixed, np.array([0, 2]))
    damaged = CropSet.from_samples([replace(small[0], image=b"abc")])
    with pytest.raises(ValueError, match=r"sample 0 of source .a.: .*does not decode"):
        load_batch(damaged, np.array([0]))


def test_missing_and_empty_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_shards([tmp_path / "nowhere-*.tar"])
    with pytest.raises(ValueError, match="no samples"):
        CropSet.from_samples([])


def test_coco_people_become_crops_with_their_joints_in_place(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path, images=1)
    (image,) = load_coco(annotations, folder)
    assert len(image.people) == 2
    person = image.people[0]
    crop, joints = context_crop(image.read(), person)
    assert crop.shape == (358, 269, 3)
    labelled = person.keypoints[:, 2] > 0
    assert (joints[:, 2] > 0).tolist() == labelled.tolist()
    # A joint is drawn as a disc of its own colour; the crop shows that colour at the joint.
    pixels = image.read()
    nose = person.keypoints[9, :2].round().astype(int)
    at = joints[9, :2].round().astype(int)
    assert np.abs(crop[at[1], at[0]].astype(int) - pixels[nose[1], nose[0]]).max() < 12


def test_mistakes_of_a_coco_sets_images_are_named(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path, images=2)
    images = load_coco(annotations, folder)
    with pytest.raises(ValueError, match=r"000001\.png: 420x300 pixels, but annotated as 300x420"):
        replace(images[0], width=300, height=420).read()
    images[0].path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"000001\.png: image of 10 bytes does not decode"):
        images[0].read()
    with changing(annotations) as content:
        del content["images"][1]["width"]
    with pytest.raises(ValueError, match=r"people\.json: image 1 of the list has no 'width'"):
        load_coco(annotations, folder)
    annotations.write_text("{")
    with pytest.raises(ValueError, match=r"people\.json: not JSON"):
        load_coco(annotations, folder)


def test_large_people_shrink_without_a_shift() -> None:
    from sdpose_core.data.coco import CocoPerson

    rows, columns = np.mgrid[:1400, :1100]
    image = np.stack([columns / 1100 * 255, rows / 1400 * 255, 0 * rows], axis=2)
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[0] = (500, 700, 2)
    box = np.array([200, 300, 800, 1100], np.float32)
    person = CocoPerson(1, box, keypoints, 1e5)
    crop, joints = context_crop(image.astype(np.uint8), person)
    x, y = joints[0, :2]
    seen = crop[round(float(y)), round(float(x))].astype(float)
    assert abs(seen[0] - 500 / 1100 * 255) < 2
    assert abs(seen[1] - 700 / 1400 * 255) < 2


def test_coco_samples_pack_and_load(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path, images=2)
    crops = CropSet.from_samples(coco_samples(load_coco(annotations, folder), "mine"))
    assert len(crops) == 4
    assert crops.human.all()
    assert crops.decode(0).shape == (358, 269, 3)


@pytest.mark.parametrize("head", [b"\x1f\x8b", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b""])
def test_a_shard_of_a_head_alone_is_named(tmp_path: Path, head: bytes) -> None:
    """Of gzip, bzip2 and xz: some trip the standard library's own reader."""
    path = tmp_path / "head.tar"
    path.write_bytes(head)
    with pytest.raises(ValueError, match=r"head\.tar: not a whole tar file"):
        list(read_shard(path))


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_a_picture_that_is_cut_short_is_named(tmp_path: Path, kind: str) -> None:
    """Also in the middle of a shard, whose first picture alone is decoded when it is loaded."""
    samples = crop_samples(3)
    pixels = cv2.imdecode(np.frombuffer(samples[1].image, np.uint8), cv2.IMREAD_COLOR)
    whole = cv2.imencode(kind, pixels)[1].tobytes()
    for share in (0.3, 0.6, 0.97):
        cut = replace(samples[1], image=whole[: int(len(whole) * share)])
        folder = tmp_path / f"{share}"
        write_shards(folder, (samples[0], cut, samples[2]))
        with pytest.raises(ValueError, match=rf"pose-0000\.tar: {cut.key}: .*truncated"):
            load_shards([folder])
    write_shards(tmp_path / "whole", (samples[0], replace(samples[1], image=whole), samples[2]))
    assert len(load_shards([tmp_path / "whole"])) == 3
