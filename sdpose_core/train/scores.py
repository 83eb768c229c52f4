"""Fitting a student's score head on people whose joints were labelled by hand.

    python -m sdpose_core.train.scores STUDENT SHARDS --output OUT.safetensors --sources NAME ...

writes the student with a fitted head (``sdpose_core.model.heads.scores``). The set must say of
every joint whether it is labelled, as COCO does: a joint of confidence 0 counts as not there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.backends import PoseBackend, make_backend
from sdpose_core.checkpoints import load_student, save_student, training_facts
from sdpose_core.data.shards import VIEW_SIZE, CropSet, load_shards
from sdpose_core.geometry import image_to_crop_matrices
from sdpose_core.heatmaps import MAX_REFINEMENT, decode_tensor
from sdpose_core.model import ScoreHead, Student
from sdpose_core.skeleton import FLIP_INDICES, OKS_SIGMAS
from sdpose_core.types import PUBLISHED_VIEW, Regions

SEGMENT_SHARE = 0.53
"""Area of a person's segment in units of its box, the mean of COCO's people; OKS needs an area."""
JITTER = (0.08, 0.02)
"""Standard deviations of a view's logarithmic size, and of its shift in units of its size."""
BATCH = 256


@dataclass(frozen=True)
class ScoreExamples:
    """What decoding left of people, and what was true of them.

    ``points`` (N, 17, 2) heatmap pixels, ``peaks`` (N, 17), ``labelled`` (N, 17) 0 or 1, and
    ``similarity`` (N, 17), the OKS terms (of no meaning where not labelled).
    """

    points: Tensor
    peaks: Tensor
    labelled: Tensor
    similarity: Tensor


def score_examples(
    backend: PoseBackend, student: Student, crops: CropSet, views: int = 14, seed: int = 0
) -> ScoreExamples:
    """Every person in ``views`` views: the first as it is served, the others jittered, each second
    one mirrored.

    The area of a person, which OKS needs, is taken from the extent of its labelled joints.
    """
    rng = np.random.default_rng(seed)
    geometry = student.config.view
    parts: list[tuple[Tensor, Tensor, NDArray[np.float32], NDArray[np.float64]]] = []
    for number in range(views):
        for start in range(0, len(crops), 32):
            chosen = range(start, min(start + 32, len(crops)))
            images = [crops.decode(i) for i in chosen]
            count, (height, width) = len(images), images[0].shape[:2]
            sizes = np.tile(
                np.array(VIEW_SIZE) * geometry.padding / PUBLISHED_VIEW.padding, (count, 1)
            )
            centres = np.tile(np.array((width / 2, height / 2)), (count, 1))
            if number:
                sizes = sizes * np.exp(JITTER[0] * rng.standard_normal((count, 1)))
                centres = centres + JITTER[1] * rng.standard_normal((count, 2)) * sizes
            regions = Regions(centres.astype(np.float32), sizes.astype(np.float32), geometry)
            matrices = image_to_crop_matrices(regions)
            pixels = np.stack(
                [
                    cv2.warpAffine(image, matrix, geometry.input_size)
                    for image, matrix in zip(images, matrices, strict=True)
                ]
            )
            known = crops.keypoints[list(chosen)]
            joints = (
                known[..., :2] @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]
            )
            labelled = (known[..., 2] > 0).astype(np.float32)
            if number % 2:
                swap = list(FLIP_INDICES)
                pixels = np.ascontiguousarray(pixels[:, :, ::-1])
                joints[..., 0] = geometry.input_size[0] - 1 - joints[..., 0]
                joints, labelled = joints[:, swap], labelled[:, swap]
            maps = backend.run(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            points, peaks = decode_tensor(maps, MAX_REFINEMENT)
            step = geometry.input_size[0] / geometry.heatmap_size[0]
            parts.append(
                (points, peaks, labelled, _similarity(points.numpy() * step, joints, labelled))
            )
    points, peaks = (torch.cat([part[k] for part in parts]) for k in (0, 1))  # type: ignore[misc]
    return ScoreExamples(
        points,
        peaks,
        torch.from_numpy(np.concatenate([part[2] for part in parts])),
        torch.from_numpy(np.concatenate([part[3] for part in parts])).float(),
    )


def _similarity(
    found: NDArray[np.floating], joints: NDArray[np.float64], labelled: NDArray[np.float32]
) -> NDArray[np.float64]:
    """OKS terms ``(N, 17)`` in crop pixels, with an area from the extent of the labelled joints."""
    there = labelled[..., None] > 0
    low = np.where(there, joints, np.inf).min(axis=1)
    high = np.where(there, joints, -np.inf).max(axis=1)
    sides = np.maximum(1.2 * (high - low), 8.0)
    sides = np.maximum(sides, sides[:, ::-1] / 4)  # a few joints in a row are no thin person
    area = SEGMENT_SHARE * sides.prod(axis=1)
    squared = ((found - joints) ** 2).sum(axis=2)
    variance = (2 * np.array(OKS_SIGMAS)) ** 2
    return np.asarray(np.exp(-squared / (2 * variance * area[:, None])))


def fit_scores(
    head: ScoreHead, examples: ScoreExamples, *, passes: int = 30, seed: int = 0
) -> None:
    """Fit ``head`` in place: cross-entropy of being labelled, and of a labelled joint's OKS term.

    AdamW 2e-3, decay 0.1, dropout 0.3 on the hidden units, noise of 0.05 standard deviations on the
    features.
    """
    torch.manual_seed(seed)
    features = head.features(examples.points, examples.peaks)
    head.mean.copy_(features.mean(0))
    head.scale.copy_(features.std(0) + 1e-3)
    features = (features - head.mean) / head.scale
    first, activation, last = head.layers
    for layer in (first, last):
        layer.reset_parameters()  # type: ignore[operator]
    head.requires_grad_(True)
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.1)
    count = head.keypoints
    for _ in range(passes):
        for rows in torch.randperm(len(features)).split(BATCH):  # type: ignore[no-untyped-call]
            seen = features[rows] + 0.05 * torch.randn(len(rows), features.shape[1])
            values = last(F.dropout(activation(first(seen)), 0.3))
            labelled = examples.labelled[rows]
            right = F.binary_cross_entropy_with_logits(
                values[:, count:], examples.similarity[rows], reduction="none"
            )
            loss = F.binary_cross_entropy_with_logits(values[:, :count], labelled)
            loss = loss + (right * labelled).sum() / labelled.sum().clamp_min(1)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    head.requires_grad_(False)


def with_scores(
    student: Student, crops: CropSet, *, width: int = 64, views: int = 14, seed: int = 0
) -> Student:
    """A copy of ``student`` with a head of ``width`` hidden units, fitted on ``crops``."""
    config = replace(student.config, score_width=width)
    fitted = Student(config).eval()
    state = {k: v for k, v in student.state_dict().items() if not k.startswith("scores.")}
    fitted.load_state_dict(state, strict=False)
    examples = score_examples(make_backend(student, device="cpu"), student, crops, views, seed)
    assert fitted.scores is not None
    fit_scores(fitted.scores, examples, seed=seed)
    return fitted


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m sdpose_core.train.scores``."""
    parser = argparse.ArgumentParser(description="Fit the score head of a student.")
    parser.add_argument("student")
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sources", nargs="*", help="Only people of these sources.")
    parser.add_argument("--views", type=int, default=14)
    given = parser.parse_args(arguments)
    crops = load_shards(given.shards)
    if given.sources:
        kept = [i for i, source in enumerate(crops.sources) if source in given.sources]
        if not kept:
            parser.error(f"no person of {given.sources}; there are {sorted(set(crops.sources))}")
        crops = CropSet(
            tuple(crops.images[i] for i in kept),
            crops.keypoints[kept],
            tuple(crops.sources[i] for i in kept),
            crops.human[kept],
        )
    student = with_scores(load_student(given.student), crops, views=given.views)
    facts = {**training_facts(given.student), "scores": f"{len(crops)} people, {given.views} views"}
    save_student(student, given.output, facts)
    sys.stdout.write(f"{given.output}: scores fitted on {len(crops)} people\n")


if __name__ == "__main__":
    main()
