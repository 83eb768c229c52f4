"""The quick development score of the training loop: mean OKS with given boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sdpose_core.data.coco import load_coco
from sdpose_core.model import Student
from sdpose_core.skeleton import OKS_SIGMAS
from sdpose_core.train.objective.objective import cycle_outputs
from sdpose_core.types import PUBLISHED_VIEW, Regions, ViewGeometry
from sdpose_core.vision.crops import crop_image
from sdpose_core.vision.geometry import heatmap_to_image, regions_from_boxes
from sdpose_core.vision.heatmaps import decode_tensor


@dataclass(frozen=True)
class DevelopmentSet:
    """Crops (N, height, width, 3) uint8 of annotated people, and what to score them against.

    The crops are those that a student of ``regions.view`` sees.
    """

    crops: NDArray[np.uint8]
    regions: Regions
    keypoints: NDArray[np.float32]
    areas: NDArray[np.float64]

    @classmethod
    def load(
        cls, annotations: Path, images: Path, view: ViewGeometry = PUBLISHED_VIEW
    ) -> DevelopmentSet:
        """Cut every annotated person of a COCO set for a student of ``view``.

        Raises:
            ValueError: not a COCO set, or one without people.
            OSError: an image that cannot be read.
        """
        crops: list[NDArray[np.uint8]] = []
        regions: list[Regions] = []
        keypoints: list[NDArray[np.float32]] = []
        areas: list[float] = []
        for image in load_coco(annotations, images):
            if not image.people:
                continue
            views = regions_from_boxes(np.stack([p.box for p in image.people]), view)
            crops.append(crop_image(image.read(), views))
            regions.append(views)
            keypoints.extend(p.keypoints for p in image.people)
            areas.extend(p.area for p in image.people)
        if not crops:
            raise ValueError(
                f"{annotations}: no person with a labelled joint and a box in the image"
            )
        return cls(
            crops=np.concatenate(crops),
            regions=Regions(
                np.concatenate([r.centres for r in regions]),
                np.concatenate([r.sizes for r in regions]),
                view,
            ),
            keypoints=np.stack(keypoints),
            areas=np.array(areas, np.float64),
        )

    def __len__(self) -> int:
        return len(self.crops)


def joint_similarity(
    points: NDArray[np.float32], truth: NDArray[np.float32], areas: NDArray[np.float64]
) -> NDArray[np.float64]:
    """OKS terms of each person's joints (N, 17), of no meaning where one is not labelled.

    ``points`` (N, 17, 2) and ``truth`` (N, 17, 3) in pixels of the same image, ``areas`` (N,) in
    its square pixels. COCO's exp(-d^2 / (2 area (2 sigma)^2)).
    """
    variance = (2 * np.array(OKS_SIGMAS)) ** 2
    squared = ((points - truth[..., :2]).astype(np.float64) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squared / (2 * variance * (areas[:, None] + np.spacing(1)))))


def object_keypoint_similarity(
    points: NDArray[np.float32], truth: NDArray[np.float32], areas: NDArray[np.float64]
) -> NDArray[np.float64]:
    """OKS of each person with its own annotation: (N,), over labelled joints.

    Arguments as ``joint_similarity`` has them.
    """
    labelled = truth[..., 2] > 0
    terms = joint_similarity(points, truth, areas)
    return np.asarray((terms * labelled).sum(axis=1) / np.maximum(1, labelled.sum(axis=1)))


@torch.inference_mode()
def development_score(
    student: Student,
    held: DevelopmentSet,
    *,
    size: tuple[int, int] | None = None,
    cycles: int | None = None,
    batch: int = 32,
) -> NDArray[np.float64]:
    """OKS of every person (N,), no flip test, on the student's own device.

    ``cycles``: after how many cycles, None is as many as the student serves with.
    ``size``: height and width at which the backbone sees the crops, averaged down to it; None is
    what the student does when it serves.
    """
    cycles = student.config.cycles.check(cycles)
    device = next(student.parameters()).device
    was_training = student.training
    student.eval()
    points = []
    for start in range(0, len(held), batch):
        part = torch.from_numpy(held.crops[start : start + batch]).to(device)
        images = part.permute(0, 3, 1, 2).float()
        if size is None:
            seen = student.pool(images)
        else:
            seen = resize_views(images, size).contiguous(memory_format=torch.channels_last)
        outputs = cycle_outputs(student, student.features(seen), cycles)
        maps = outputs[-1].heatmaps.float()
        if student.config.heatmap_kind == "logits":
            maps = maps.flatten(2).softmax(dim=2).view_as(maps)
        points.append(decode_tensor(maps)[0].cpu().numpy())
    student.train(was_training)
    placed = heatmap_to_image(np.concatenate(points), held.regions)
    return object_keypoint_similarity(placed, held.keypoints, held.areas)


def resize_views(views: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Views (B, 3, height, width) at another size, each new pixel the mean of those it covers."""
    if tuple(views.shape[2:]) == tuple(size):
        return views
    return F.interpolate(views, size, mode="area")
