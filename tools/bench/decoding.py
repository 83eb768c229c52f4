"""`python -m tools.bench decoding`: the table of docs/decisions/0003-image-decoding.md."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np
import typer
from PIL import Image as PillowImage
from ultralytics.utils import ASSETS

from service.bench.tables import markdown


def median_ms(work: Callable[[], object], times: int = 15) -> float:
    """The median time of one call."""
    spent: list[float] = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        spent.append((time.perf_counter() - started) * 1e3)
    return median(spent)


def main() -> None:
    """OpenCV and Pillow on the same files of three kinds."""
    rows = []
    for name in ("bus.jpg", "zidane.jpg"):
        jpeg = (ASSETS / name).read_bytes()
        picture = PillowImage.open(io.BytesIO(jpeg)).convert("RGB")
        for kind in ("JPEG", "PNG", "WEBP"):
            file = io.BytesIO()
            picture.save(file, kind)
            data = jpeg if kind == "JPEG" else file.getvalue()

            def opencv(data: bytes = data) -> object:
                return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)

            def pillow(data: bytes = data) -> object:
                return np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))

            both = (median_ms(opencv), median_ms(pillow))
            rows.append([f"{name} {kind}", *(f"{ms:.1f}" for ms in both)])
    typer.echo(markdown(["file", "OpenCV ms", "Pillow ms"], rows))
