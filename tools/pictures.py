"""`python -m tools.pictures`: draws docs/images/overlay.jpg with today's weights.

Beside it stands overlay.json, the people that it shows; a test compares them with today's answer.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from ultralytics.utils import ASSETS

from sdpose_core import PoseEstimator, Poses
from sdpose_core.image_files import ImageLimits, decode_image
from sdpose_core.io.overlay import draw_poses
from sdpose_core.io.people import people_json
from sdpose_core.types import Image

IMAGES = (Path(ASSETS) / "bus.jpg", Path(ASSETS) / "zidane.jpg")
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "overlay.jpg"
PEOPLE = PICTURE.with_suffix(".json")
HEIGHT = 480


def answers() -> list[tuple[Image, Poses]]:
    """The images and their people, with the flip test."""
    images = [decode_image(path.read_bytes(), ImageLimits()) for path in IMAGES]
    found = PoseEstimator.from_pretrained().estimate(images, flip_test=True)
    return list(zip(images, found, strict=True))


def main() -> None:
    """Write both files."""
    drawn = []
    people = {}
    for path, (image, poses) in zip(IMAGES, answers(), strict=True):
        width = round(image.shape[1] * HEIGHT / image.shape[0])
        drawing = draw_poses(image, poses)
        drawn.append(cv2.resize(drawing, (width, HEIGHT), interpolation=cv2.INTER_AREA))
        people[path.name] = people_json(poses)
    cv2.imwrite(str(PICTURE), np.hstack(drawn)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    PEOPLE.write_text(json.dumps(people, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
