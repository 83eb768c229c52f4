"""The quick development score of the training loop: mean OKS with given boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sdpose_core.data.coco import load_coco
from sdpose_core.model import Student, StudentConfig
from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.types import Regions
from sdpose_core.vision.crops import crop_image
from sdpose_core.vision.geometry import heatmap_to_image, regions_from_boxes
from sdpose_core.vision.heatmaps import decode_tensor
from sdpose_core.vision.oks import joint_similarities


@dataclass(frozen=True)
class DevelopmentSet:
    """Crops (N, height, width, 3) uint8 of annotated people, and what to score them against.

    The crops are those that a student of ``regions.view`` sees.
    """

    crops: NDArray[np.uint8]
    regions: Regions
    keypoints: NDArray[np.float32]
    areas: NDArray[np.float64]
    skeleton: Skeleton = COCO17

    @classmethod
    def load(cls, annotations: Path, images: Path, student: StudentConfig) -> DevelopmentSet:
        """Cut every annotated person of a COCO set for a student, joints in its order.

        Raises:
            ValueError: not a COCO set, or one without people.
            OSError: an image that cannot be read.
        """
        view = student.view
        crops: list[NDArray[np.uint8]] = []
        regions: list[Regions] = []
        keypoints: list[NDArray[np.float32]] = []
        areas: list[float] = []
        for image in load_coco(annotations, images, student.skeleton):
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
            skeleton=student.skeleton,
        )

    def __len__(self) -> int:
        return len(self.crops)


def object_keypoint_similarity(
    points: NDArray[np.float32],
    truth: NDArray[np.float32],
    areas: NDArray[np.float64],
    sigmas: Sequence[float],
) -> NDArray[np.float64]:
    """OKS of each person with its own annotation: (N,), over labelled joints.

    ``points`` (N, K, 2) and ``truth`` (N, K, 3) in pixels of the same image, ``areas`` (N,) in
    its square pixels; ``sigmas`` are the K tolerances.
    """
    labelled = truth[..., 2] > 0
    terms = joint_similarities(points, truth[..., :2], areas, sigmas)
    return np.asarray((terms * labelled).sum(axis=1) / np.maximum(1, labelled.sum(axis=1)))


@torch.inference_mode()
def development_score(
    student: Student, held: DevelopmentSet, *, cycles: int | None = None, batch: int = 32
) -> NDArray[np.float64]:
    """OKS of every person (N,), no flip test, on the student's own device.

    ``cycles``: after how many cycles, None is as many as the student serves with.
    """
    device = next(student.parameters()).device
    was_training = student.training
    student.eval()
    points = []
    for start in range(0, len(held), batch):
        part = torch.from_numpy(held.crops[start : start + batch]).to(device)
        maps = student(part.permute(0, 3, 1, 2).float(), cycles)
        points.append(decode_tensor(maps)[0].cpu().numpy())
    student.train(was_training)
    placed = heatmap_to_image(np.concatenate(points), held.regions)
    return object_keypoint_similarity(placed, held.keypoints, held.areas, held.skeleton.sigmas)
