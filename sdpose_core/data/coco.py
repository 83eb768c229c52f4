"""COCO keypoint sets: people with their boxes and joints, and their context crops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sdpose_core.ahead import ahead
from sdpose_core.data.coco_file import read_coco, warn_once
from sdpose_core.data.shards import CONTEXT_SIZE, VIEW_SIZE, CropSample, decode_rgb
from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.types import Floats, Image
from sdpose_core.vision.geometry import regions_from_boxes


@dataclass(frozen=True)
class CocoPerson:
    """One annotated person.

    ``box`` (4,) xyxy in image pixels, clipped to the image; ``keypoints`` (K, 3) x, y, flag
    (0 unlabelled, 1 hidden, 2 visible); ``area`` of the segment in square pixels.
    """

    annotation_id: str
    box: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    area: float


@dataclass(frozen=True)
class CocoImage:
    """One image of a set and its eligible people (not crowd, with a labelled joint).

    ``skeleton`` names their joints; ``others`` (M, 4) are the boxes xyxy of the rest.
    """

    image_id: int
    path: Path
    width: int
    height: int
    people: tuple[CocoPerson, ...]
    skeleton: Skeleton = COCO17
    others: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def read(self) -> Image:
        """The image as RGB uint8 HWC.

        Raises ``FileNotFoundError``, or ``ValueError`` naming a file that does not decode or
        differs in size from its annotation.
        """
        try:
            pixels = decode_rgb(self.path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        height, width = pixels.shape[:2]
        if (width, height) != (self.width, self.height):
            raise ValueError(
                f"{self.path}: {width}x{height} pixels, but annotated as {self.width}x{self.height}"
            )
        return pixels


def load_coco(
    annotations: Path, images: Path, skeleton: Skeleton | None = COCO17
) -> list[CocoImage]:
    """Images of a COCO keypoint set in file order, including those without people.

    Their joints are in the order of ``skeleton`` (``read_coco``).

    People: not crowd, at least one labelled joint, a box with area inside the image; how many
    others there are is logged. Raises ``ValueError`` as ``read_coco`` does.
    """
    file = read_coco(annotations, skeleton)
    listed = [
        CocoImage(
            image_id=entry["id"],
            path=images / entry["file_name"],
            width=entry["width"],
            height=entry["height"],
            people=(),
            skeleton=file.skeleton,
        )
        for entry in file.images
    ]
    sizes = {image.image_id: (image.width, image.height) for image in listed}
    people: dict[int, list[CocoPerson]] = {}
    others: dict[int, list[list[float]]] = {}
    left_out: Counter[str] = Counter()
    for entry in file.people:
        person = eligible(entry, *sizes[entry["image_id"]])
        if isinstance(person, str):
            left_out[person] += 1
            x, y, width, height = entry["bbox"]
            others.setdefault(entry["image_id"], []).append([x, y, x + width, y + height])
        else:
            people.setdefault(entry["image_id"], []).append(person)
    if left_out:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        warn_once(
            f"{annotations}: {left_out.total()} of {len(file.people)} people are left out: {why}"
        )
    return [
        replace(
            image,
            people=tuple(people.get(image.image_id, ())),
            others=np.array(others.get(image.image_id, []), np.float32).reshape(-1, 4),
        )
        for image in listed
    ]


def eligible(annotation: dict[str, Any], width: int, height: int) -> CocoPerson | str:
    """The person of an entry of ``CocoFile.people``, or why it is left out."""
    if annotation["iscrowd"]:
        return "in a crowd"
    if not annotation["num_keypoints"]:
        return "without a labelled joint"
    x, y, w, h = annotation["bbox"]
    # As in the published code: the last pixel of a clipped box lies inside the image.
    x1, y1 = max(0.0, x), max(0.0, y)
    x2 = min(width - 1.0, x1 + max(0.0, w - 1))
    y2 = min(height - 1.0, y1 + max(0.0, h - 1))
    if x2 <= x1 or y2 <= y1 or annotation["area"] <= 0:
        return "whose box has no area inside the image"
    return CocoPerson(
        annotation_id=annotation["said_id"],
        box=np.array([x1, y1, x2, y2], np.float32),
        keypoints=np.asarray(annotation["keypoints"], np.float32).reshape(-1, 3),
        area=annotation["area"],
    )


def context_crop(
    image: Image, person: CocoPerson, size: tuple[int, int] = CONTEXT_SIZE
) -> tuple[Image, NDArray[np.float32]]:
    """The person's context crop of ``size`` (width, height) and joints (K, 3) in its pixels.

    Confidence is 1 for a labelled joint and 0 for others. Shrinking averages pixels to avoid
    aliasing in small crops of large people.
    """
    regions = regions_from_boxes(person.box[None])
    scale = VIEW_SIZE[0] / float(regions.sizes[0, 0])
    centre = regions.centres[0].astype(np.float64)
    shrink = max(1, int(1 / scale))
    source: NDArray[Any] = image
    if shrink > 1:
        height, width = image.shape[0] // shrink, image.shape[1] // shrink
        source = cv2.resize(
            image[: height * shrink, : width * shrink],
            (width, height),
            interpolation=cv2.INTER_AREA,
        )
    # Pixel centres of the averaged image are at shrink * i + (shrink - 1) / 2.
    small_centre = (centre - (shrink - 1) / 2) / shrink
    small_scale = scale * shrink
    matrix = np.array(
        [
            [small_scale, 0, size[0] / 2 - small_scale * small_centre[0]],
            [0, small_scale, size[1] / 2 - small_scale * small_centre[1]],
        ]
    )
    crop = cv2.warpAffine(source, matrix, size, flags=cv2.INTER_LINEAR)
    joints = np.zeros_like(person.keypoints)
    labelled = person.keypoints[:, 2] > 0
    xy = (person.keypoints[:, :2] - centre) * scale + np.array(size) / 2
    width, height = size
    inside = (xy > -2).all(axis=1) & (xy[:, 0] < width + 2) & (xy[:, 1] < height + 2)
    known = labelled & inside
    joints[known, :2] = xy[known]
    joints[known, 2] = 1
    return np.asarray(crop, np.uint8), joints


def coco_samples(
    images: Sequence[CocoImage],
    source: str,
    quality: int = 80,
    size: tuple[int, int] = CONTEXT_SIZE,
    workers: int = 0,
) -> Iterator[CropSample]:
    """Context crops (``size`` width, height) of every person of a set, as WebP of ``quality``.

    With ``workers`` threads images are cropped ahead; the order is still that of ``images``.
    """
    peopled = (image for image in images if image.people)

    def cut(image: CocoImage) -> list[CropSample]:
        return _image_samples(image, source, quality, size)

    for samples in ahead(cut, peopled, workers=workers, limit=2 * workers + 1, name="pack"):
        yield from samples


def _image_samples(
    image: CocoImage, source: str, quality: int, size: tuple[int, int]
) -> list[CropSample]:
    pixels = image.read()
    samples = []
    for person in image.people:
        crop, joints = context_crop(pixels, person, size)
        done, data = cv2.imencode(".webp", crop[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
        if not done:
            raise ValueError(f"{image.path}: the crop cannot be encoded as WebP")
        samples.append(
            CropSample(
                key=f"{image.image_id:012d}_{person.annotation_id}",
                image=data.tobytes(),
                keypoints=joints,
                source=source,
                human=True,
                image_name=image.path.name,
                names=image.skeleton.keypoints,
            )
        )
    return samples
