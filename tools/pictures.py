"""`python -m tools.pictures`: draws the images of the documents with today's weights.

docs/images/overlay.jpg is the README's, docs/images/sheet.jpg the model card's: each person of the
two images of ultralytics and of the page's example, in the crop that the student sees. Beside them
stands people.json, who is on them; a test compares that with today's answer. One pass, in fp32,
which every processor has.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from ultralytics.utils import ASSETS

from sdpose_core import PoseEstimator, Poses
from sdpose_core.io.overlay import draw_poses
from sdpose_core.io.people import people_json
from sdpose_core.types import Image, ViewGeometry
from sdpose_core.vision.crops import crop_image
from sdpose_core.vision.geometry import apply_matrices, image_to_crop_matrices, regions_from_boxes
from sdpose_core.vision.image_files import ImageLimits, decode_image

_ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = _ROOT / "service" / "web" / "example.jpg"
IMAGES = (Path(ASSETS) / "bus.jpg", Path(ASSETS) / "zidane.jpg", EXAMPLE)
FOLDER = _ROOT / "docs" / "images"
PEOPLE = FOLDER / "people.json"
HEIGHT = 480
_CAPTION = 22
_IN_A_ROW = 8


def answers(estimator: PoseEstimator) -> list[tuple[Image, Poses]]:
    """The images and their people."""
    images = [decode_image(path.read_bytes(), ImageLimits()) for path in IMAGES]
    return list(zip(images, estimator.estimate(images), strict=True))


def overlay(answered: list[tuple[Image, Poses]]) -> Image:
    """Whole images with their skeletons, side by side."""
    drawn = []
    for image, poses in answered:
        width = round(image.shape[1] * HEIGHT / image.shape[0])
        drawing = cv2.resize(
            draw_poses(image, poses), (width, HEIGHT), interpolation=cv2.INTER_AREA
        )
        drawn.append(drawing.astype(np.uint8))
    return np.hstack(drawn)


def sheet(answered: list[tuple[Image, Poses]], view: ViewGeometry) -> Image:
    """Each person in the student's crop, with the score below."""
    tiles = []
    for image, poses in answered:
        regions = regions_from_boxes(poses.boxes, view)
        points = apply_matrices(image_to_crop_matrices(regions), poses.keypoints)
        placed = replace(poses, keypoints=points.astype(np.float32))
        for index, crop in enumerate(crop_image(image, regions)):
            drawn = draw_poses(crop, placed.select(np.array([index])))
            caption = np.full((_CAPTION, drawn.shape[1], 3), 255, np.uint8)
            score = f"{poses.scores[index]:.2f}"
            cv2.putText(caption, score, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0))
            tiles.append(np.vstack([drawn, caption]))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _IN_A_ROW)
    rows = [np.hstack(tiles[at : at + _IN_A_ROW]) for at in range(0, len(tiles), _IN_A_ROW)]
    return np.vstack(rows)


def main() -> None:
    """Write all three files."""
    estimator = PoseEstimator.from_pretrained(precision="fp32")
    answered = answers(estimator)
    pictures = {
        "overlay": overlay(answered[:2]),
        "sheet": sheet(answered, estimator.config.view),
    }
    for name, picture in pictures.items():
        cv2.imwrite(
            str(FOLDER / f"{name}.jpg"), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85]
        )
    people = {
        path.name: people_json(poses) for path, (_, poses) in zip(IMAGES, answered, strict=True)
    }
    PEOPLE.write_text(json.dumps(people, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
