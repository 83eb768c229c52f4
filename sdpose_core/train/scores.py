"""Fitting a student's score heads on people whose joints were labelled by hand.

    python -m sdpose_core.train.scores STUDENT SHARDS --output OUT.safetensors --sources NAME ...

writes the student with fitted heads for the scores of joints (``sdpose_core.model.heads.scores``)
and of people (``.people``); its keypoints are unchanged. The set must state of every joint whether
it is labelled, as COCO does: a joint of confidence 0 counts as not there. People labelled by a
machine are left out. With ``--keep-joints`` the joints' scores stay as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.checkpoints import build_student, find_checkpoint, save_student
from sdpose_core.data.batches import load_batch
from sdpose_core.data.shards import CropSet, context_regions, load_shards
from sdpose_core.files.outputs import check_outputs
from sdpose_core.hardware.backends import PoseBackend, make_backend
from sdpose_core.model import PersonHead, ScoreHead, Student, StudentConfig
from sdpose_core.skeleton import Skeleton
from sdpose_core.train.loop.initialise import without_scores
from sdpose_core.types import Floats, Regions
from sdpose_core.vision.crops import crop_image
from sdpose_core.vision.geometry import heatmap_to_image
from sdpose_core.vision.heatmaps import MAX_REFINEMENT, decode_tensor
from sdpose_core.vision.oks import joint_similarities
from sdpose_core.vision.ranking import pose_features

SEGMENT_SHARE = 0.53
"""Area of a person's segment in units of its box, the mean of COCO's people; OKS needs an area."""
JITTER = (0.08, 0.02)
"""Standard deviations of a view's logarithmic size, and of its shift in units of its size."""
BATCH = 256
TOGETHER = 32
"""People that are decoded together."""


@dataclass(frozen=True)
class ScoreExamples:
    """Decoded people with their labels.

    ``points`` (N, K, 2) heatmap pixels, ``peaks`` (N, K), ``labelled`` (N, K) 0 or 1, and
    ``similarity`` (N, K), the OKS terms (of no meaning if not labelled).
    """

    points: Tensor
    peaks: Tensor
    labelled: Tensor
    similarity: Tensor


def score_examples(
    backend: PoseBackend, config: StudentConfig, crops: CropSet, views: int = 14, seed: int = 0
) -> ScoreExamples:
    """Every person in ``views`` views: the first as served, the others jittered, each second
    one mirrored.

    Raises:
        ValueError: no views, or a crop that does not decode or is of another size.
    """
    if views < 1:
        raise ValueError(f"views: expected at least 1, got {views}")
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, len(crops), TOGETHER):
        batch = load_batch(crops, np.arange(start, min(start + TOGETHER, len(crops))))
        height, width = batch.images.shape[1:3]
        for number in range(views):
            images, joints = batch.images, batch.keypoints
            if number % 2:
                images, joints = _mirrored(images, joints, config.skeleton)
            regions = context_regions(len(images), (width, height), config.view)
            if number:
                regions = _jittered(regions, rng)
            parts.append(_examples(backend, images, joints, regions, config.skeleton))
    return ScoreExamples(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _mirrored(
    images: NDArray[np.uint8], joints: Floats, skeleton: Skeleton
) -> tuple[NDArray[np.uint8], Floats]:
    """Images (N, H, W, 3) and joints (N, K, 3) as a mirror shows them: left becomes right."""
    swapped = joints[:, list(skeleton.mirror)].copy()
    swapped[..., 0] = images.shape[2] - 1 - swapped[..., 0]
    return np.ascontiguousarray(images[:, :, ::-1]), swapped


def _jittered(regions: Regions, rng: np.random.Generator) -> Regions:
    """Views of other sizes and places, as the boxes of a detector differ."""
    count = len(regions)
    sizes = regions.sizes * np.exp(JITTER[0] * rng.standard_normal((count, 1)))
    centres = regions.centres + JITTER[1] * rng.standard_normal((count, 2)) * sizes
    return Regions(centres.astype(np.float32), sizes.astype(np.float32), regions.view)


def _examples(
    backend: PoseBackend,
    images: NDArray[np.uint8],
    joints: Floats,
    regions: Regions,
    skeleton: Skeleton,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of ``ScoreExamples`` for one view of each image."""
    views = zip(images, regions.centres[:, None], regions.sizes[:, None], strict=True)
    pixels = np.concatenate(
        [crop_image(image, Regions(centre, size, regions.view)) for image, centre, size in views]
    )
    seen = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(backend.device)
    points, peaks = (part.cpu() for part in decode_tensor(backend.run(seen), MAX_REFINEMENT))
    placed = heatmap_to_image(points, regions)
    similarity = joint_similarities(placed, joints[..., :2], _areas(joints), skeleton.sigmas)
    labelled = torch.from_numpy((joints[..., 2] > 0).astype(np.float32))
    return points, peaks, labelled, torch.from_numpy(similarity).float()


def _areas(joints: Floats) -> NDArray[np.float64]:
    """Areas (N,) of people's segments from the extent of their labelled joints (N, K, 3), in
    square pixels of the joints.
    """
    there = joints[..., 2:] > 0
    low = np.where(there, joints[..., :2], np.inf).min(axis=1)
    high = np.where(there, joints[..., :2], -np.inf).max(axis=1)
    sides = np.maximum(1.2 * (high - low), 8.0)
    sides = np.maximum(sides, sides[:, ::-1] / 4)  # a few joints in a row are no thin person
    return np.asarray(SEGMENT_SHARE * sides.prod(axis=1), np.float64)


def fit_scores(
    head: ScoreHead, examples: ScoreExamples, *, passes: int = 30, seed: int = 0
) -> None:
    """Fit ``head`` in place: cross-entropy of being labelled, and of a labelled joint's OKS term.

    AdamW 2e-3, decay 0.1, dropout 0.3 on the hidden units, noise of 0.05 standard deviations on the
    features.
    """
    torch.manual_seed(seed)

    def loss(values: Tensor, rows: Tensor) -> Tensor:
        there, right = values.split(head.keypoints, dim=1)  # type: ignore[no-untyped-call]
        labelled, similarity = examples.labelled[rows], examples.similarity[rows]
        placed = F.binary_cross_entropy_with_logits(right, similarity, reduction="none")
        placed = (placed * labelled).sum() / labelled.sum().clamp_min(1)
        return F.binary_cross_entropy_with_logits(there, labelled) + placed

    features = head.features(examples.points, examples.peaks)
    _fit(head, features, loss, passes, batch=BATCH, rate=2e-3, dropout=0.3)


def fit_people(
    head: PersonHead, scores: ScoreHead, examples: ScoreExamples, *, passes: int = 25, seed: int = 0
) -> None:
    """Fit ``head`` in place: cross-entropy of the mean OKS term of a person's labelled joints.

    AdamW 3e-3, decay 0.1, dropout 0.2 on the hidden units, noise of 0.05 standard deviations on the
    features. ``scores`` is the head by which the people will have their joints' scores.
    """
    torch.manual_seed(seed)
    known = examples.labelled.sum(1) > 0
    points, peaks, labelled, similarity = (
        part[known]
        for part in (examples.points, examples.peaks, examples.labelled, examples.similarity)
    )
    expected = (similarity * labelled).sum(1) / labelled.sum(1)
    places = (points / scores.size - 0.5).numpy()
    features = torch.from_numpy(pose_features(places, scores(points, peaks)[0].numpy()))

    def loss(values: Tensor, rows: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(values[:, 0], expected[rows])

    _fit(head, features, loss, passes, batch=BATCH // 2, rate=3e-3, dropout=0.2)


def _fit(
    head: ScoreHead | PersonHead,
    features: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    passes: int,
    *,
    batch: int,
    rate: float,
    dropout: float,
) -> None:
    """Fit a perceptron in place; ``loss`` takes its values of rows and their indices."""
    head.mean.copy_(features.mean(0))
    head.scale.copy_(features.std(0, correction=0) + 1e-3)
    features = (features - head.mean) / head.scale
    first, activation, last = head.layers
    for layer in (first, last):
        layer.reset_parameters()  # type: ignore[operator]
    head.requires_grad_(True)
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.1)
    for _ in range(passes):
        for rows in torch.randperm(len(features)).split(batch):  # type: ignore[no-untyped-call]
            seen = features[rows] + 0.05 * torch.randn(len(rows), features.shape[1])
            optimiser.zero_grad()
            loss(last(F.dropout(activation(first(seen)), dropout)), rows).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    head.requires_grad_(False)


def with_scores(
    student: Student,
    crops: CropSet,
    *,
    width: int = 64,
    person_width: int = 16,
    views: int = 14,
    seed: int = 0,
    keep_joints: bool = False,
) -> Student:
    """A copy of ``student`` with heads of ``width`` and ``person_width`` hidden units for the
    scores of joints and people, fitted on ``crops``. ``keep_joints`` keeps the former.

    Raises:
        ValueError: the set labels all joints or none, or what ``score_examples`` rejects.
    """
    config = student.config
    labelled = crops.keypoints[..., 2] > 0
    if labelled.all() or not labelled.any():
        raise ValueError(
            f"{'every' if labelled.all() else 'no'} joint of the {len(crops)} people is labelled: "
            "a score head learns from both kinds"
        )
    if keep_joints and student.scores is None:
        raise ValueError(f"{config.name}: it has no joint scores to keep")
    kept = without_scores(student).state_dict()
    if keep_joints:
        width = config.score_width
        kept = {k: v for k, v in student.state_dict().items() if not k.startswith("people.")}
    fitted = Student(replace(config, score_width=width, person_width=person_width)).eval()
    assert fitted.scores is not None
    assert fitted.people is not None
    fitted.load_state_dict({**fitted.state_dict(), **kept})
    examples = score_examples(make_backend(student, device="cpu"), config, crops, views, seed)
    if not keep_joints:
        fit_scores(fitted.scores, examples, seed=seed)
    fit_people(fitted.people, fitted.scores, examples, seed=seed)
    return fitted


def chosen_people(crops: CropSet, sources: Sequence[str]) -> CropSet:
    """Those labelled by hand, of ``sources`` only if some are named.

    Raises:
        ValueError: a source the set does not have, or no person is left.
    """
    unknown = sorted(set(sources) - set(crops.sources))
    if unknown:
        raise ValueError(
            f"no person of source {', '.join(unknown)}: the shards hold "
            f"{', '.join(sorted(set(crops.sources)))}"
        )
    kept = [
        number
        for number, source in enumerate(crops.sources)
        if crops.human[number] and (source in sources or not sources)
    ]
    if not kept:
        raise ValueError(
            "all of these people were labelled by a machine: a score head needs labels by people"
        )
    return crops.select(kept)


def _facts(training: Mapping[str, Any], head: str) -> dict[str, Any]:
    """The facts of a checkpoint that still hold with another score head."""
    facts = {k: v for k, v in training.items() if k != "evaluation"}
    if isinstance(facts.get("scores"), str):  # of the head before; a run keeps numbers there
        del facts["scores"]
    return {**facts, "score_head": head}


def _check_target(path: Path) -> None:
    """Reject before the fit a file that could not be written after it."""
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the output's name must end in .safetensors")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path}: cannot be written: expected a file in a folder that exists")


def fit_file(
    student: str,
    shards: Sequence[str],
    target: Path,
    sources: Sequence[str],
    views: int,
    keep_joints: bool = False,
) -> int:
    """Write ``student`` (a preset or a file) with heads fitted on people of ``shards``.

    The weights are stored in the precision that they had: keypoints stay what they were.

    Returns:
        The number of people.

    Raises:
        ValueError, OSError: an input that cannot be used or a target that cannot be written; the
            message names it in one sentence.
    """
    _check_target(target)
    check_outputs([target], [Path(student)])
    checkpoint = find_checkpoint(student)
    crops = chosen_people(load_shards(shards), sources)
    network = build_student(checkpoint, student)
    crops = crops.ordered(network.config.skeleton)
    fitted = with_scores(network, crops, views=views, keep_joints=keep_joints)
    head = f"fitted on {len(crops)} people, {views} views each"
    before = checkpoint.training if keep_joints else _facts(checkpoint.training, head)
    facts = {**before, "person_head": head}
    kinds = {value.dtype for value in checkpoint.state.values() if value.is_floating_point()}
    save_student(fitted, target, facts, dtype=torch.float16 if kinds == {torch.float16} else None)
    return len(crops)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m sdpose_core.train.scores``; 2 after one sentence on a mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m sdpose_core.train.scores", description="Fit the score heads of a student."
    )
    parser.add_argument("student", help="A preset with embedded weights, or a checkpoint file.")
    parser.add_argument("shards", nargs="+", help="Tar shards: files, folders or globs.")
    parser.add_argument("--output", type=Path, required=True, help="File to write (.safetensors).")
    parser.add_argument("--sources", nargs="+", default=[], help="Only people of these sources.")
    parser.add_argument("--views", type=int, default=14, help="Views of each person.")
    parser.add_argument("--keep-joints", action="store_true", help="Fit only the scores of people.")
    given = parser.parse_args(arguments)
    try:
        what = (given.student, given.shards, given.output, given.sources)
        count = fit_file(*what, given.views, given.keep_joints)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write(f"{given.output}: scores fitted on {count} people\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
