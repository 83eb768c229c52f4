"""Labels by a network that sees every crop in several views, fused with those of the shards.

A network's predictions for a person seen larger, smaller and mirrored differ where it is unsure;
the place that most of them vote for is better than any of them (data distillation, arXiv
1712.04440). A student that learns from such labels while its views are disturbed is a noisy student
(arXiv 1911.04252).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.crops import warp_tensor
from sdpose_core.data.shards import VIEW_SIZE, CropSet, context_regions
from sdpose_core.geometry import heatmap_to_image, image_to_crop_matrices, invert_matrices
from sdpose_core.heatmaps import MAX_REFINEMENT, decode_tensor, mirror, unflip
from sdpose_core.model import Student
from sdpose_core.train.recipe.config import ViewLabelConfig
from sdpose_core.types import PUBLISHED_VIEW
from sdpose_core.whole_file import whole_file

LABELS_NAME = "labels.npz"
BOX_SIDE: Final = (VIEW_SIZE[0] * VIEW_SIZE[1]) ** 0.5 / PUBLISHED_VIEW.padding
"""Distances below are in units of this, the root of the area of a person's box (grown to 3:4) in a
context crop: 177 pixels."""
VOTE_REACH: Final = 0.05
"""Standard deviation of the Gaussian by which predictions vote for each other."""
AGREEMENT, HALF_AGREEMENT = 0.08, 0.1
"""Maximum distance at which a machine label, or a doubtful manual one, agrees with the views."""
LABEL_SHARE: Final = 0.35
"""Weight of the label in the mean of both where they agree and are equally certain."""
BLACK: Final = 14
"""Maximum grey level at which a whole row or column of a crop counts as beyond the photograph."""

Floats = NDArray[np.float32]


@torch.inference_mode()
def view_answers(
    teacher: Student, pictures: Tensor, config: ViewLabelConfig
) -> tuple[Floats, Floats]:
    """Predictions of ``teacher`` for context crops (B, H, W, 3) uint8 on its device, view by view.

    Returns:
        Joints (V, B, 17, 2) in pixels of the context crops, and peaks (V, B, 17).
    """
    count, height, width = pictures.shape[:3]
    images = pictures.permute(0, 3, 1, 2).float()
    device = images.device
    points, peaks = [], []
    for padding in config.paddings:
        geometry = replace(teacher.config.view, padding=padding)
        regions = context_regions(count, (width, height), geometry)
        back = torch.from_numpy(invert_matrices(image_to_crop_matrices(regions)))
        across, down = geometry.input_size
        views = warp_tensor(images, back.to(device, torch.float32), (down, across))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            answers = [teacher(views).float()]
            if config.mirrored:
                # Mirrored so that a whole column of the heatmap fits exactly, whatever it serves
                # with.
                answers.append(unflip(teacher(mirror(views, aligned=True)).float()))
        for maps in answers:
            places, heights = decode_tensor(maps, MAX_REFINEMENT)
            points.append(heatmap_to_image(places.cpu().numpy(), regions))
            peaks.append(heights.clamp(0, 1.2).cpu().numpy())
    return np.stack(points), np.stack(peaks)


def vote(points: Floats, peaks: Floats) -> tuple[Floats, Floats]:
    """Where most views see each joint, (B, 17, 2), and their combined confidence, (B, 17).

    Each prediction gets the votes of all, weighted by their peaks and by a Gaussian of the
    distance. The joint lies at the mean of the predictions around the one with most votes, and the
    share of votes is its score: views that disagree lower it, one that is far off does not move the
    joint.
    """
    squared = ((points[:, None] - points[None]) ** 2).sum(-1) / BOX_SIDE**2
    near = np.exp(-squared / (2 * VOTE_REACH**2)) * peaks[None]
    votes = near.mean(1)
    best = votes.argmax(0)
    share = np.take_along_axis(near, best[None, None], 0)[0]
    mean = (points * share[..., None]).sum(0) / np.maximum(share.sum(0), 1e-6)[..., None]
    return mean.astype(np.float32), votes.max(0).astype(np.float32)


def photographs(pictures: Tensor) -> Floats:
    """First and last column, first and last row of the photograph in each crop: (B, 4).

    ``pictures`` (B, H, W, 3) uint8; context crops are black beyond the image they were cut from.
    """
    lit = pictures.amax(3) > BLACK
    ends = []
    for line in (lit.any(1), lit.any(2)):
        values = line.to(torch.uint8)
        ends += [values.argmax(1), line.shape[1] - 1 - values.flip(1).argmax(1)]
    return torch.stack(ends, 1).cpu().numpy().astype(np.float32)


def fuse(
    crops: CropSet, points: Floats, scores: Floats, photograph: Floats, config: ViewLabelConfig
) -> tuple[Floats, Floats]:
    """Labels of a set and of the views combined: joints (N, 17, 3) and amplitudes (N, 17).

    ``points`` (N, 17, 2), ``scores`` (N, 17) of ``vote``; ``photograph`` (N, 4). The third column
    of the joints is the weight in the loss, the amplitude the height of the target's Gaussian. With
    s the views' score by ``config.sure``, at most 1, and c the label's confidence, by joint:

    - The label is a machine's and agrees with the views: the mean of both, amplitude max(s, c),
      weight 1. It does not agree: the more certain one, weight 0.3. It has none: the views' joint
      at three quarters of s, weight 0.5.
    - The label is manual (of a sample labelled by people, confidence 1): used unchanged, amplitude
      1, weight 1.5. From a doubtful source: the mean with the views' joint where it agrees with it,
      amplitude and weight 1, else the label with weight 0.4.
    - People did not label the joint: the views' joint, amplitude s, weight 1. Where the source is
      complete it is not visible: amplitude 0.3 s.
    - Joints beyond the photograph are absent: amplitude 0, weight 1.
    """
    label, sure = crops.keypoints[..., :2], crops.keypoints[..., 2]
    score = np.clip(scores / config.sure, 0, 1)
    distance = np.linalg.norm(label - points, axis=2) / BOX_SIDE
    known = sure > 0
    by_hand = crops.human[:, None] & (sure >= 1)
    by_machine = known & ~by_hand
    silent = ~known & ~crops.human[:, None]
    doubtful, complete = (
        np.isin(np.array(crops.sources), names)[:, None]
        for names in (config.doubtful, config.complete)
    )

    xy, amplitude, weight = points.copy(), score.copy(), np.ones_like(score)

    def put(where: NDArray[np.bool_], place: Floats, height: Floats | float, worth: float) -> None:
        nonlocal xy, amplitude, weight
        xy = np.where(where[..., None], place, xy)
        amplitude = np.where(where, height, amplitude).astype(np.float32)
        weight = np.where(where, worth, weight).astype(np.float32)

    share = LABEL_SHARE * sure
    share = (share / (share + (1 - LABEL_SHARE) * np.maximum(score, 0.05)))[..., None]
    mixed = (share * label + (1 - share) * points).astype(np.float32)
    agree = distance < AGREEMENT
    put(by_machine & agree, mixed, np.maximum(score, sure), 1.0)
    put(by_machine & ~agree, points, score, 0.3)
    put(by_machine & ~agree & (sure > score), label, sure, 0.3)
    put(silent, points, 0.75 * score, 0.5)
    put(by_hand & ~doubtful, label, 1.0, 1.5)
    near = distance < HALF_AGREEMENT
    put(by_hand & doubtful & near, 0.5 * (label + points), 1.0, 1.0)
    put(by_hand & doubtful & ~near, label, 1.0, 0.4)
    put(~known & crops.human[:, None] & complete, points, 0.3 * score, 1.0)
    left, right, top, bottom = (photograph[:, k : k + 1] for k in range(4))
    x, y = xy[..., 0], xy[..., 1]
    beyond = (x < left - 1) | (x > right + 1) | (y < top - 1) | (y > bottom + 1)
    put(beyond, xy, 0.0, 1.0)
    joints = np.concatenate((xy, weight[..., None]), axis=2)
    return joints.astype(np.float32), amplitude.astype(np.float32)


def label_crops(
    teacher: Student,
    crops: CropSet,
    pictures: Callable[[NDArray[np.int64]], Tensor],
    config: ViewLabelConfig,
    batch: int = 256,
) -> CropSet:
    """The crops with labels by ``teacher`` (in evaluation mode), fused with their own.

    ``pictures`` gives context crops by index, (B, H, W, 3) uint8 on the teacher's device.
    """
    joints, scores, areas = [], [], []
    for start in range(0, len(crops), batch):
        shown = pictures(np.arange(start, min(start + batch, len(crops))))
        places, peaks = vote(*view_answers(teacher, shown, config))
        joints.append(places)
        scores.append(peaks)
        areas.append(photographs(shown))
    found = [np.concatenate(parts) for parts in (joints, scores, areas)]
    return crops.labelled(*fuse(crops, found[0], found[1], found[2], config))


def write_labels(folder: Path, crops: CropSet, labelled: CropSet) -> None:
    """Save the labels of a run in its folder; ``crops`` are the set before labelling."""
    assert labelled.amplitudes is not None
    content = {
        "keypoints": labelled.keypoints,
        "amplitudes": labelled.amplitudes,
        "of": np.array(_identity(crops)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / LABELS_NAME) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **content)  # type: ignore[arg-type]


def read_labels(folder: Path, crops: CropSet) -> CropSet | None:
    """``crops`` with the saved labels of a run, None if there are none.

    Raises:
        ValueError: the file is damaged, or its labels belong to other crops.
    """
    path = folder / LABELS_NAME
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file) as content:
            found = {name: content[name] for name in ("keypoints", "amplitudes", "of")}
    except Exception as error:  # a damaged zip file fails in any way there is
        raise ValueError(f"{path}: not readable labels of a run ({error})") from error
    if str(found["of"]) != _identity(crops):
        raise ValueError(
            f"{path}: the labels belong to other crops than those of this run; start a new run"
        )
    return crops.labelled(found["keypoints"], found["amplitudes"])


def _identity(crops: CropSet) -> str:
    return hashlib.sha256(crops.keypoints.tobytes() + "\n".join(crops.sources).encode()).hexdigest()
