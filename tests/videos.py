"""Videos for tests, made on the spot."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sdpose_core.io.video import VideoWriter
from sdpose_core.types import Image


def flat_video(
    path: Path, frames: int, *, rate: int = 25, height: int = 64, width: int = 96
) -> Path:
    """Flat images, each brighter than the one before it, as our own writer stores them."""
    with VideoWriter(path, Fraction(rate)) as writer:
        for number in range(frames):
            writer.write(np.full((height, width, 3), 20 + 8 * number % 200, np.uint8))
    return path


def encoded_video(
    file: object,
    images: Iterable[Image],
    *,
    codec: str = "libx264",
    rate: int = 10,
    times_ms: Iterable[int] = (),
    gop_size: int = 12,
    **options: object,
) -> None:
    """Images as FFmpeg encodes them; `times_ms` are those of the frames, where they are uneven."""
    with av.open(file, "w", **options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", gop_size
        images, times = list(images), list(times_ms)
        stream.height, stream.width = images[0].shape[:2]
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
