"""`python -m tools.bench decoding`: the table of docs/decisions/0003-image-decoding.md."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np
from PIL import Image as PillowImage
from ultralytics.utils import ASSETS


def median_ms(work: Callable[[], object], times: int = 15) -> float:
    """The median time of one call."""
    spent: list[float] = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        spent.append((time.perf_counter() - started) * 1e3)
    return median(spent)


def main() -> None:
    """Prints one row per image and kind."""
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

            sys.stdout.write(
                f"{name} {kind}: OpenCV {median_ms(opencv):.1f} ms, "
                f"Pillow {median_ms(pillow):.1f} ms\n"
            )


if __name__ == "__main__":
    main()
