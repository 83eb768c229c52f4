"""Decoding needs no more memory than is set aside for it, measured in a process of its own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from sdpose_core.vision.image_files import ImageLimits, decode_image, read_header
from tests.pictures import encoded
from tests.service.processes import ROOT

WIDTH, HEIGHT = 2000, 1500
SLACK = 3 * 2**20  # tiles, rows and tables, whatever the picture's size


def files(width: int, height: int) -> Iterator[tuple[str, bytes]]:
    """The greediest file of each way to decode."""
    blocks = np.random.default_rng(0).integers(
        0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8
    )
    pixels = np.kron(blocks, np.ones((16, 16, 1), np.uint8))[:height, :width]
    plain = PillowImage.fromarray(pixels)
    clear = plain.convert("RGBA")
    clear.putalpha(plain.convert("L"))
    palette = PillowImage.fromarray(pixels[..., 0], "L").convert("P")
    turned = PillowImage.Exif()
    turned[0x0112] = 6
    scans: dict[str, object] = {"progressive": True, "exif": turned}
    yield "jpeg", encoded(plain, "JPEG", subsampling=0, **scans)
    yield "cmyk", encoded(plain.convert("CMYK"), "JPEG", **scans)
    yield "png", encoded(clear, "PNG", compress_level=1, exif=turned)
    yield "webp", encoded(clear, "WEBP", lossless=True, method=0, exif=turned)
    yield "avif", encoded(clear, "AVIF", speed=10, exif=turned)
    yield "bmp", encoded(plain, "BMP")
    deep = np.asarray(clear).astype(np.uint16) * 257
    one_strip = [cv2.IMWRITE_TIFF_ROWSPERSTRIP, height, cv2.IMWRITE_TIFF_COMPRESSION, 5]
    yield "tiff", cv2.imencode(".tiff", deep, one_strip)[1].tobytes()
    yield "gif", encoded(palette, "GIF", save_all=True, append_images=[plain], disposal=2)


def measure(folder: Path) -> None:
    """Prints, of each file, its name, the most resident memory on top, and what is set aside."""
    for path in sorted(folder.glob("*.small")):
        decode_image(path.read_bytes(), ImageLimits())  # what is loaded once is no part of it
    for path in sorted(folder.glob("*.large")):
        data = path.read_bytes()
        header = read_header(data, ImageLimits())
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        decode_image(data, ImageLimits(), header)
        needed = resident("VmHWM") - before
        sys.stdout.write(json.dumps([path.stem, needed, header.peak_bytes]) + "\n")


def resident(name: str) -> int:
    """One of the sizes that Linux tells of this process, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in status if line.startswith(name))
    return int(line.split()[1]) * 1024


def test_decoding_needs_no_more_than_is_set_aside(tmp_path: Path) -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not tell peak memory anew")
    for size, shape in (("small", (64, 64)), ("large", (WIDTH, HEIGHT))):
        for name, data in files(*shape):
            (tmp_path / f"{name}.{size}").write_bytes(data)
    here = "from tests.core.test_decode_memory import *; measure(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", here, str(tmp_path)],
        cwd=ROOT,
        # Memory goes back to the system at once, so that one file's does not serve the next.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 8
    assert [each for each in told if each[1] > each[2] + SLACK] == []
    assert [each for each in told if each[1] < 3 * WIDTH * HEIGHT] == []  # it was measured at all
