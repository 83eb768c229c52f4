"""Does a GPU answer what a CPU answers in float32?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from sdpose_core import PoseEstimator, Poses
from sdpose_core.checkpoints import load_student
from sdpose_core.detector import load_detector
from sdpose_core.hardware.backends.torch import TorchBackend
from sdpose_core.hardware.cuda_graphs import GraphedCalls
from sdpose_core.model import PRESETS, Student
from sdpose_core.types import Image
from sdpose_core.vision.heatmaps import decode_tensor

PRECISIONS = ("fp32", "fp16", "bf16")
STUDENTS = (("sdpose-lite", 0), ("sdpose-lite", 1), ("sdpose-t", 1))
HEATMAP_LIMITS = {"fp32": 1e-2, "fp16": 2e-2, "bf16": 0.4}
"""Largest error of a heatmap of noise, relative to the largest value. PyTorch convolves fp32 in
TF32 on a GPU; in bf16 every layer's output has 8 bits, which the trained light student feels."""
PIXELS = {"auto": 1.0, "bf16": 3.0}
"""Largest median distance of a keypoint of the whole pipeline, image pixels."""
THREADS = 8


@dataclass(frozen=True)
class Check:
    """One comparison: the value found and the largest allowed."""

    what: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Not so for NaN."""
        return self.value <= self.limit


def students(device: str) -> list[Check]:
    """Every kind of student: replayed and call by call, each precision, full and padded batches."""
    checks = []
    generator = torch.Generator().manual_seed(1)
    for name, cycles in STUDENTS:
        student = Student(PRESETS[name]).eval()
        if name == "sdpose-lite" and cycles == 0:
            student = load_student(name)
        size = student.config.input_size
        crops = torch.randint(0, 256, (3, 3, *size), generator=generator, dtype=torch.uint8)
        expected = TorchBackend(student, "cpu").run(crops, cycles)
        state = student.float().state_dict()
        for precision in PRECISIONS:
            twin = Student(student.config).eval()
            twin.load_state_dict(state)
            backend = TorchBackend(twin, device, precision)
            there = crops.to(device)
            answers = [backend.run(there, cycles) for _ in range(2)]
            error = max(float((a.cpu() - expected).abs().max()) for a in answers)
            title = f"{name}, {cycles} cycles, {precision}"
            scale = float(expected.abs().max())
            checks.append(Check(f"{title}: heatmaps", error / scale, HEATMAP_LIMITS[precision]))
            other = backend.run(there.flip(0), cycles).flip(0)
            moved = float((other - answers[0]).abs().max()) / scale
            checks.append(Check(f"{title}: turned batch", moved, HEATMAP_LIMITS[precision]))
    return checks


def decoding(device: str) -> list[Check]:
    """The decoder on the device against the CPU, on random and on flat maps."""
    generator = torch.Generator().manual_seed(2)
    maps = torch.rand((4, 17, 64, 48), generator=generator)
    maps[0] = 0
    expected = torch.cat([part.flatten() for part in decode_tensor(maps, 1.5)])
    call = GraphedCalls(_decoded) if device != "cpu" else _decoded
    found = call(maps.to(device)).cpu()
    return [Check("decoder: points and peaks", float((found - expected).abs().max()), 1e-2)]


def _decoded(maps: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.flatten() for part in decode_tensor(maps, 1.5)])


def detector(device: str, pictures: Mapping[str, Image]) -> list[Check]:
    """The detector's boxes, one image and several at once."""
    images = list(pictures.values())
    backend = "torch"
    expected = load_detector(device="cpu", backend=backend).detect(images)
    checks = []
    for precision in ("fp32", "fp16"):
        found = load_detector(device=device, backend=backend, precision=precision)
        frames = [torch.from_numpy(image).to(device) for image in images]
        batches = [found.detect([*frames, *frames])[: len(frames)], found.detect(frames)]
        for name, right, *answers in zip(pictures, expected, *batches, strict=True):
            for answer in answers:
                sure = right.scores > 0.5
                there = answer.scores > 0.5
                same = int(sure.sum()) == int(there.sum())
                moved = (
                    float(np.abs(right.boxes[sure] - answer.boxes[there]).max()) if same else np.inf
                )
                checks.append(Check(f"detector, {precision}, {name}: boxes", moved, 6.0))
    return checks


def pipeline(device: str, pictures: Mapping[str, Image]) -> list[Check]:
    """Whole answers, and the same ones from many threads at once."""
    images = list(pictures.values())
    expected = PoseEstimator.from_pretrained(device="cpu", backend="torch").estimate(
        images, min_score=0.5
    )
    checks = []
    for precision, pixels in PIXELS.items():
        estimator = PoseEstimator.from_pretrained(
            device=device, backend="torch", precision=precision
        )
        alone = [_one(estimator, image) for image in images]
        together = estimator.estimate(images, min_score=0.5)
        many = list(range(len(images))) * (8 * THREADS // len(images))
        with ThreadPoolExecutor(THREADS) as pool:
            answers = pool.map(partial(_one, estimator), [images[k] for k in many])
            crowd = list(zip(many, answers, strict=True))
        for index, name in enumerate(pictures):
            right = expected[index]
            title = f"pipeline, {precision}, {name}"
            checks += [
                Check(f"{title}: alone", _distance(right, alone[index]), pixels),
                Check(f"{title}: together", _distance(right, together[index]), pixels),
                Check(
                    f"{title}: {THREADS} threads against one",
                    max(_distance(alone[index], poses) for k, poses in crowd if k == index),
                    pixels,
                ),
            ]
    return checks


def _one(estimator: PoseEstimator, image: Image) -> Poses:
    return estimator.estimate([image], min_score=0.5)[0]


def _distance(right: Poses, found: Poses) -> float:
    """Median distance of confident joints, pixels; infinite if other people were found."""
    if len(right) != len(found):
        return np.inf
    sure = right.keypoint_scores > 0.5
    distance = np.linalg.norm(right.keypoints - found.keypoints, axis=2)
    return float(np.median(distance[sure]))


def report(device: str, pictures: Mapping[str, Image], say: Callable[[str], None]) -> bool:
    """Prints every check; whether all passed."""
    with torch.inference_mode():
        checks = [
            *students(device),
            *decoding(device),
            *detector(device, pictures),
            *pipeline(device, pictures),
        ]
    for check in checks:
        mark = "ok  " if check.passed else "FAIL"
        say(f"{mark} {check.what}: {check.value:.3g} (at most {check.limit:g})")
    return all(check.passed for check in checks)
