"""The development score of the training loop: COCO's AP with given boxes, and mean OKS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from sdpose_core.data.coco import CocoImage, load_coco
from sdpose_core.evaluate.breakdown import score_people
from sdpose_core.evaluate.coco_metrics import coco_numbers
from sdpose_core.evaluate.results import ImagePoses, coco_results
from sdpose_core.model import Student, StudentConfig
from sdpose_core.types import Poses, Regions
from sdpose_core.vision.crops import crop_image
from sdpose_core.vision.geometry import heatmap_to_image, regions_from_boxes
from sdpose_core.vision.heatmaps import decode_tensor
from sdpose_core.vision.ranking import mean_scores

AP: Final = "dev/ap"
OKS: Final = "dev/oks"
"""Names of the scores that decide which student is kept: AP, and of equal ones the mean OKS."""


@dataclass(frozen=True)
class DevelopmentSet:
    """Annotated people, cut as a student of ``regions.view`` sees them.

    ``crops`` (N, height, width, 3) uint8, in the order of the people of ``images``, all of which
    have some; ``annotations`` is their file.
    """

    crops: NDArray[np.uint8]
    regions: Regions
    images: tuple[CocoImage, ...]
    annotations: Path

    @classmethod
    def load(cls, annotations: Path, images: Path, student: StudentConfig) -> DevelopmentSet:
        """Cut every annotated person of a COCO set for a student, joints in its order.

        Raises:
            ValueError: not a COCO set, or one without people.
            OSError: an image that cannot be read.
        """
        listed = load_coco(annotations, images, student.skeleton)
        peopled = tuple(image for image in listed if image.people)
        if not peopled:
            raise ValueError(
                f"{annotations}: no person with a labelled joint and a box in the image"
            )
        regions = [
            regions_from_boxes(np.stack([one.box for one in image.people]), student.view)
            for image in peopled
        ]
        crops = [
            crop_image(image.read(), views) for image, views in zip(peopled, regions, strict=True)
        ]
        every = Regions(
            np.concatenate([one.centres for one in regions]),
            np.concatenate([one.sizes for one in regions]),
            student.view,
        )
        return cls(np.concatenate(crops), every, peopled, annotations)

    def __len__(self) -> int:
        return len(self.crops)


@torch.inference_mode()
def development_poses(
    student: Student, held: DevelopmentSet, *, cycles: int | None = None, batch: int = 32
) -> list[ImagePoses]:
    """The poses of the set's people on the student's own device, no flip test.

    Joints score the peaks of their heatmaps and people the mean of those, as published.

    ``cycles``: after how many cycles, None is as many as the student serves with.
    """
    device = next(student.parameters()).device
    was_training = student.training
    student.eval()
    found = []
    for start in range(0, len(held), batch):
        part = torch.from_numpy(held.crops[start : start + batch]).to(device)
        maps = student(part.permute(0, 3, 1, 2).float(), cycles)
        found.append([each.cpu().numpy() for each in decode_tensor(maps)])
    student.train(was_training)
    points, peaks = (np.concatenate(each) for each in zip(*found, strict=True))
    placed = heatmap_to_image(points, held.regions)
    answers, start = [], 0
    for image in held.images:
        own = slice(start, start + len(image.people))
        boxes = np.stack([one.box for one in image.people])
        ones = np.ones(len(boxes), np.float32)
        poses = Poses(placed[own], peaks[own], boxes, ones, skeleton=image.skeleton)
        poses = replace(poses, scores=mean_scores(poses))
        answers.append(ImagePoses(image, poses, given=True))
        start = own.stop
    return answers


def development_scores(student: Student, held: DevelopmentSet) -> dict[str, float]:
    """COCO's AP, mean OKS, and the share of people above 0.5, by name."""
    found = development_poses(student, held)
    ids = [image.image_id for image in held.images]
    results = coco_results(found)
    numbers = coco_numbers(held.annotations, results, ids, held.images[0].skeleton, bootstrap=0)
    similar = np.array([one.oks for one in score_people(found)])
    return {
        AP: numbers.values["AP"],
        OKS: float(similar.mean()),
        "dev/oks50": float((similar > 0.5).mean()),
    }
