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


def beeping_video(path: Path, codec: str, *, seconds: int = 3, rate: int = 48_000) -> Path:
    """A video of 10 frames per second with a tone in the first half of each second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.pix_fmt, video.codec_context.max_b_frames = "yuv420p", 0
        video.width, video.height = 96, 64
        sound = container.add_stream(codec, rate=rate, layout="stereo")
        size = sound.codec_context.frame_size or 1024
        resampler = av.AudioResampler(sound.format.name, "stereo", rate, size)
        times = np.arange(seconds * rate) / rate
        tone = (np.sin(2 * np.pi * 440 * times) * (times % 1 < 0.5) / 2).astype(np.float32)
        samples = av.AudioFrame.from_ndarray(np.stack([tone, tone]), "fltp", "stereo")
        samples.sample_rate, samples.pts = rate, 0
        for number in range(10 * seconds):
            image = np.full((64, 96, 3), 20 + 5 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for part in (*resampler.resample(samples), *resampler.resample(None), None):
            container.mux(sound.encode(part))
        container.mux(video.encode(None))
    return path


def loudness(path: Path) -> list[float]:
    """Of each quarter of a second of a video the part of its sound that is loud, 0 to 1."""
    with av.open(str(path)) as container:
        (sound,) = container.streams.audio
        resampler = av.AudioResampler("flt", "mono", 8000)
        loud = np.zeros(60 * 8000)
        for frame in container.decode(sound):
            at = round(frame.time * 8000)
            for part in resampler.resample(frame):
                values = np.abs(part.to_ndarray()[0])
                loud[at : at + len(values)] = values > 0.02
                at += len(values)
        end = at // 2000 * 2000
    found: list[float] = loud[:end].reshape(-1, 2000).mean(axis=1).round(2).tolist()
    return found
