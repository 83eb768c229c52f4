"""Drawn people: pictures whose joints are known exactly, as shards and as a COCO set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sdpose_core.checkpoints import save_student
from sdpose_core.data.shards import CONTEXT_SIZE, CropSample, CropSet, ShardWriter
from sdpose_core.model import PRESETS, Student
from sdpose_core.skeleton import COCO17
from sdpose_core.vision.heatmaps import encode

# A standing figure in a unit square, x right and y down, left joints on the picture's right.
FIGURE = np.array(
    [
        (0.50, 0.10), (0.53, 0.08), (0.47, 0.08), (0.57, 0.10), (0.43, 0.10), (0.65, 0.25),
        (0.35, 0.25), (0.75, 0.40), (0.25, 0.40), (0.80, 0.55), (0.20, 0.55), (0.60, 0.55),
        (0.40, 0.55), (0.62, 0.75), (0.38, 0.75), (0.63, 0.95), (0.37, 0.95),
    ]
)  # fmt: skip


def draw(
    joints: NDArray[np.floating], size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A picture (height, width, 3) of ``size`` (width, height) with one stick figure."""
    shade = rng.integers(20, 90)
    image = np.full((size[1], size[0], 3), shade, np.uint8)
    at = [(round(float(x)), round(float(y))) for x, y in joints]
    for a, b in COCO17.edges:
        cv2.line(image, at[a], at[b], (180, 180, 180), 5)
    for number, point in enumerate(at):
        colour = [int(v) for v in np.random.default_rng(number).integers(80, 255, 3)]
        cv2.circle(image, point, 6, colour, -1)
    return image


def pose(rng: np.random.Generator, box: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Joints (17, 2) of a figure with random limbs inside a box x, y, width, height."""
    joints = FIGURE + rng.normal(0, 0.05, FIGURE.shape)
    return joints.clip(0.02, 0.98) * (box[2], box[3]) + (box[0], box[1])


def constant_student(path: Path, x: float, y: float, height: float = 1.0) -> Path:
    """A student that answers with the same place for every joint, heatmap pixels."""
    student = Student(replace(PRESETS["sdpose-t"], depth=1))
    maps, _ = encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))
    last = student.head[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(height * maps.flatten())
    save_student(student, path, dtype=None)
    return path


def crop_samples(count: int, seed: int = 0) -> list[CropSample]:
    """People in context crops; every third label is by a machine, one joint each unknown."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        box = rng.uniform((45, 55, 105, 170), (80, 90, 145, 210))
        joints = pose(rng, tuple(box))
        done, data = cv2.imencode(".webp", draw(joints, CONTEXT_SIZE, rng)[:, :, ::-1])
        assert done
        keypoints = np.concatenate([joints, np.ones((17, 1))], axis=1).astype(np.float32)
        keypoints[number % 17] = 0
        samples.append(
            CropSample(
                key=f"{number:04d}",
                image=data.tobytes(),
                keypoints=keypoints,
                source=("a", "b")[number % 2],
                human=number % 3 > 0,
                image_name=f"{number}.jpg",
            )
        )
    return samples


def write_shards(
    folder: Path, samples: Iterable[CropSample], *, per_shard: int = 1000, prefix: str = "pose"
) -> list[Path]:
    """The samples as shards in a folder; returns their files."""
    with ShardWriter(folder, prefix=prefix, per_shard=per_shard) as writer:
        for sample in samples:
            writer.write(sample)
    return writer.paths


@contextmanager
def changing(annotations: Path) -> Iterator[dict[str, Any]]:
    """The content of a COCO file, which is written again as the block leaves it."""
    content: dict[str, Any] = json.loads(annotations.read_text())
    yield content
    annotations.write_text(json.dumps(content))


def crop_set(count: int, seed: int = 0) -> CropSet:
    """``crop_samples`` as a set."""
    return CropSet.from_samples(crop_samples(count, seed))


def coco_folder(folder: Path, images: int = 4, seed: int = 0) -> tuple[Path, Path]:
    """A COCO keypoint set of drawn people, two an image; returns annotations and image folder."""
    rng = np.random.default_rng(seed)
    pictures = folder / "images"
    pictures.mkdir(parents=True)
    listed, annotations = [], []
    for number in range(1, images + 1):
        canvas = np.full((300, 420, 3), 40, np.uint8)
        for person in range(2):
            box = (20.0 + 200 * person, 20.0, 150.0, 250.0)
            joints = pose(rng, box)
            canvas = np.maximum(canvas, draw(joints, (420, 300), rng))
            flags = np.full((17, 1), 2.0)
            flags[rng.integers(0, 17)] = 0
            rows = np.concatenate([joints * (flags > 0), flags], axis=1)
            annotations.append(
                {
                    "id": 10 * number + person,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": list(box),
                    "area": 0.6 * box[2] * box[3],
                    "num_keypoints": 16,
                    "keypoints": [round(float(v), 2) for v in rows.ravel()],
                }
            )
        name = f"{number:012d}.png"
        cv2.imwrite(str(pictures / name), canvas[:, :, ::-1])
        listed.append({"id": number, "file_name": name, "width": 420, "height": 300})
    path = folder / "people.json"
    path.write_text(
        json.dumps(
            {
                "images": listed,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "person"}],
            }
        )
    )
    return path, pictures
