"""Tables of speed: students, images of several people, the service, cameras."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import cv2
import numpy as np
import torch

from sdpose_core import PoseEstimator
from sdpose_core.hardware.backends.torch import TorchBackend
from sdpose_core.model import PRESETS, Student
from sdpose_core.types import Image
from sdpose_core.vision.image_files import ImageLimits, decode_image, encode_jpeg
from service.bench.alternate import in_turns
from service.bench.serve import ServeBench, against_bare
from service.bench.server import started
from service.bench.streams import run_streams
from service.bench.tables import markdown

PEOPLE = (1, 2, 5, 10, 20)
Say = Callable[[str], None]


def per_second(work: Callable[[], object], length: float, device: str) -> float:
    """Calls a second; what is queued at the end is waited for."""
    work()
    _wait(device)
    calls, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < length:
        work()
        _wait(device)
        calls += 1
    return calls / (time.perf_counter() - begun)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def students(device: str, length: float, say: Say) -> bool:
    """Crops per second of each student: batch, precision, call by call and replayed."""
    rows = []
    for name, cycles in (("sdpose-lite", 0), ("sdpose-t", 1)):
        for batch in (1, 8, 32, 64):
            crops = torch.randint(0, 256, (batch, 3, *PRESETS[name].input_size), device=device)
            crops = crops.to(torch.uint8)
            ways = [
                TorchBackend(Student(PRESETS[name]).eval(), device, precision, graphs=graphs)
                for precision, graphs in (("fp16", False), ("fp16", True), ("bf16", True))
            ]
            calls = {
                number: partial(per_second, partial(way.run, crops, cycles), length, device)
                for number, way in enumerate(ways)
            }
            rates = [median(values) for values in in_turns(calls, 1, lambda _: None).values()]
            cells = [f"{1e3 / rate:.2f}" for rate in rates]
            best = max(rates)
            rows.append([f"{name}, {cycles} cycles", str(batch), *cells, f"{batch * best:.0f}"])
    head = ["student", "batch", "ms fp16 by calls", "ms fp16 graph", "ms bf16 graph", "crops/s"]
    say(markdown(head, rows))
    return True


def mosaic(person: Image, count: int, size: tuple[int, int] = (960, 1280)) -> Image:
    """An image (height, width) of one person several times, in rows on grey."""
    height, width = size
    columns = int(np.ceil(np.sqrt(count * 1.5)))
    rows = int(np.ceil(count / columns))
    canvas: Image = np.full((height, width, 3), 114, np.uint8)
    scale = min(height / rows / person.shape[0], width / columns / person.shape[1])
    small = cv2.resize(person, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for index in range(count):
        top = (index // columns) * (height // rows)
        left = (index % columns) * (width // columns)
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def pipeline(device: str, length: float, pictures: Mapping[str, Image], say: Say) -> bool:
    """Images per second by the number of people, from pixels in memory to keypoints."""
    estimator = PoseEstimator.from_pretrained(device=device, backend="torch")
    estimator.warm_up(detect_batch=8)
    person = pictures["bus.jpg"][390:910, 40:250]
    rows = []
    for count in PEOPLE:
        picture = mosaic(person, count)
        found = len(estimator.estimate([picture], min_score=0.25)[0])
        one = per_second(lambda p=picture: estimator.estimate([p]), length, device)  # type: ignore[misc]
        eight = 8 * per_second(lambda p=picture: estimator.estimate([p] * 8), length, device)  # type: ignore[misc]
        rows.append(
            [f"{count} ({found} found)", f"{1e3 / one:.2f}", f"{1e3 / one / count:.2f}",
             f"{one:.0f}", f"{eight:.0f}"]
        )  # fmt: skip
    head = ["people in 1280x960", "ms per image", "ms per person", "images/s", "of 8 at once"]
    say(markdown(head, rows))
    frame = estimator.upload(pictures["bus.jpg"])
    boxes = estimator.detect([frame])[0].boxes[:4]
    crops = [estimator.crop(frame, boxes)]
    heatmaps = estimator.heatmaps(crops)
    parts: dict[str, Callable[[], object]] = {
        "upload": lambda: estimator.upload(pictures["bus.jpg"]),
        "detect": lambda: estimator.detect([frame]),
        "crop 4": lambda: estimator.crop(frame, boxes),
        "student on 4": lambda: estimator.heatmaps(crops),
        "decode 4": lambda: estimator.keypoints(heatmaps, crops),
    }
    spent = [
        [name, f"{1e3 / per_second(work, length, device):.3f}"] for name, work in parts.items()
    ]
    say("")
    say(markdown(["part of one image of 810x1080", "ms"], spent))
    return True


def _service(device: str) -> dict[str, str]:
    return {"SDPOSE_DEVICE": device, "SDPOSE_BACKEND": "torch"}


def serve(device: str, length: float, file: bytes, say: Say) -> bool:
    """REST and gRPC with 1, 8 and 32 clients against the bare estimator."""
    small = _as_camera(file)
    estimator = PoseEstimator.from_pretrained(device=device, backend="torch")
    estimator.warm_up(detect_batch=8)
    plan = ServeBench([small], (1, 8, 32), 1, 4 * length)
    with started(_service(device)) as server:
        say(against_bare(estimator, server, plan, lambda line: None))
    return True


def streams(device: str, length: float, file: bytes, say: Say) -> bool:
    """Sixteen cameras of 30 frames per second."""
    with started(_service(device)) as server:
        say(
            run_streams(
                server, [("example", file)], (1, 16), (30.0,), 8 * length, lambda line: None
            )
        )
    return True


def _as_camera(file: bytes) -> bytes:
    """The image at 640x480, as a camera would send it."""
    canvas: Image = np.empty((480, 640, 3), np.uint8)
    cv2.resize(decode_image(file, ImageLimits()), (640, 480), dst=canvas)
    return encode_jpeg(canvas)
