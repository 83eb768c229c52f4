"""The cost of an image by the number of people in it, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Annotated

import cv2
import numpy as np
import typer

from sdpose_core.detector import YoloPersonDetector
from sdpose_core.estimator import PoseEstimator
from sdpose_core.types import Floats, Image
from sdpose_core.vision.image_files import ImageLimits, decode_image, encode_jpeg
from service.bench.alternate import alternate
from service.bench.tables import machine, markdown
from service.cli.bench_shared import (
    Images,
    Rounds,
    Seconds,
    bare_estimator,
    listed,
    progress_line,
    read_images,
)

Progress = Callable[[str], None]
_GREY = 114
_SURE = 0.5
_LIMITS = ImageLimits()


def mosaic(person: Image, count: int, size: tuple[int, int] = (480, 640)) -> Image:
    """An image `(height, width)` of one person several times, side by side on grey."""
    height, width = size
    canvas: Image = np.full((height, width, 3), _GREY, np.uint8)
    rows = max(1, round((count * height * person.shape[1] / (width * person.shape[0])) ** 0.5))
    columns = -(-count // rows)
    cell = (height // rows, width // columns)
    scale = 0.95 * min(cell[0] / person.shape[0], cell[1] / person.shape[1])
    small = cv2.resize(person, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for index in range(count):
        top = (index // columns) * cell[0] + (cell[0] - small.shape[0]) // 2
        left = (index % columns) * cell[1] + (cell[1] - small.shape[1]) // 2
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def cut_person(estimator: PoseEstimator, file: bytes) -> Image:
    """The largest person of an image file, with a little room."""
    image = decode_image(file, _LIMITS)
    [poses] = estimator.estimate([image], min_score=_SURE)
    if not len(poses):
        raise ValueError("the image shows no person to make images of")
    boxes = poses.boxes
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    x1, y1, x2, y2 = boxes[int(areas.argmax())].tolist()
    room = 0.03 * (y2 - y1)
    return image[
        max(0, int(y1 - room)) : int(y2 + room), max(0, int(x1 - room)) : int(x2 + room)
    ].copy()


def by_people(
    estimator: PoseEstimator,
    person: Image,
    counts: Sequence[int],
    rounds: int,
    seconds: float,
    progress: Progress,
) -> str:
    """A table: the whole pipeline beside its two networks back to back, on decoded pixels.

    The networks get ready inputs, the student in the batches that serving uses. One after the
    other they are slower than each alone: each finds the caches full of the other.
    """
    rows = []
    for count in counts:
        image = mosaic(person, count)
        found = _sure(estimator, image)
        calls: dict[str, Callable[[], object]] = {
            "pipeline": partial(estimator.estimate, [image], min_score=_SURE),
            **_networks(estimator, image, found),
        }
        rates = alternate(calls, rounds, seconds, _prefixed(progress, f"{count} people"))
        ms = {name: [1e3 / rate for rate in values] for name, values in rates.items()}
        share = median(b / p for b, p in zip(ms["both networks"], ms["pipeline"], strict=True))
        rest = (median(ms["pipeline"]) - median(ms["detector"])) / max(1, len(found))
        rows.append(
            [
                f"{count} ({len(found)} found)",
                f"{median(ms['pipeline']):.1f}",
                f"{median(ms['detector']):.1f}",
                f"{median(ms['both networks']):.1f}",
                f"{share:.2f}",
                f"{rest:.2f}",
                f"{median(ms['one crop']):.2f}",
            ]
        )
    head = [
        *("people in 640x480", "ms per image", "ms detector alone", "ms both networks"),
        *("networks of the whole", "ms per person beside the detector", "ms of one crop alone"),
    ]
    return markdown(head, rows)


def parts(
    estimator: PoseEstimator,
    person: Image,
    counts: Sequence[int],
    rounds: int,
    seconds: float,
    progress: Progress,
) -> str:
    """A table: milliseconds of every step of an image, from its JPEG to keypoints."""
    columns: dict[int, Mapping[str, float]] = {}
    for count in counts:
        image = mosaic(person, count)
        file = encode_jpeg(image)
        frame = estimator.upload(image)
        boxes = _sure(estimator, image)
        crops = [estimator.crop(frame, boxes)]
        heatmaps = estimator.heatmaps(crops)
        calls: dict[str, Callable[[], object]] = {
            "decode the JPEG": partial(decode_image, file, _LIMITS),
            "detect, all of it": partial(estimator.detect, [frame]),
            "crop": partial(estimator.crop, frame, boxes),
            "student, all of it": partial(estimator.heatmaps, crops),
            "keypoints": partial(estimator.keypoints, heatmaps, crops),
        }
        alone = _networks(estimator, image, boxes)
        calls["detector's network alone"] = alone["detector"]
        rates = alternate(calls, rounds, seconds, _prefixed(progress, f"steps, {count} people"))
        columns[count] = {name: 1e3 / median(values) for name, values in rates.items()}
    names = list(columns[counts[0]])
    rows = [[name, *(f"{columns[count][name]:.2f}" for count in counts)] for name in names]
    return markdown(["step, ms", *(f"{count} people" for count in counts)], rows)


def _sure(estimator: PoseEstimator, image: Image) -> Floats:
    """Boxes of the people that are surely there; parts of one person are found, too."""
    return estimator.detect([estimator.upload(image)])[0].select(_SURE).boxes


def _prefixed(progress: Progress, what: str) -> Progress:
    return lambda text: progress(f"{what}, {text}")


def _networks(
    estimator: PoseEstimator, image: Image, boxes: Floats
) -> dict[str, Callable[[], object]]:
    """Both networks on inputs that are ready."""
    if not isinstance(estimator.detector, YoloPersonDetector):
        raise ValueError("this needs a YOLO detector")
    frame = estimator.upload(image)
    crops = [estimator.crop(frame, boxes)]
    one = [estimator.crop(frame, boxes[:1])]
    detect = estimator.detector.network_alone([frame])
    pose = partial(estimator.heatmaps, crops)

    def both() -> None:
        detect()
        pose()

    return {
        "detector": detect,
        "both networks": both,
        "one crop": partial(estimator.heatmaps, one),
    }


def main(
    images: Images = None,
    counts: Annotated[str, typer.Option(help="Numbers of people.")] = "1,2,5,10,20",
    rounds: Rounds = 3,
    seconds: Seconds = 1.0,
) -> None:
    """An image's cost by its people, beside the networks alone, and where the rest goes."""
    typer.echo(f"{machine()}\n")
    estimator = bare_estimator()
    person = cut_person(estimator, read_images(images)[0])
    numbers = [int(number) for number in listed(counts)]
    plan = (estimator, person)
    typer.echo(by_people(*plan, numbers, rounds, seconds, progress_line))
    typer.echo("")
    ends = [numbers[0], numbers[-1]] if len(numbers) > 1 else numbers
    typer.echo(parts(*plan, ends, rounds, seconds, progress_line))
