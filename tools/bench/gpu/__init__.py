"""`python -m tools.bench.gpu`: is the GPU path right, and how fast is it? Under eight minutes.

Correctness comes first, against the CPU in float32. Then the tables: what the hardware would allow,
students, pipeline by people, the service under load, cameras. The status is 1 if a check failed,
which ends nothing. `--device cpu --seconds 0.1` tries the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sdpose_core.image_files import ImageLimits, decode_image
from sdpose_core.types import Image
from tools.bench.gpu import agreement, roofline, speed

EXAMPLE = Path(__file__).parents[3] / "service" / "web" / "example.jpg"
SECTIONS = ("agreement", "roofline", "student", "pipeline", "serve", "streams")


def pictures() -> dict[str, Image]:
    """The photographs that ship with the service and with ultralytics."""
    from ultralytics.utils import ASSETS

    files = (EXAMPLE, ASSETS / "bus.jpg", ASSETS / "zidane.jpg")
    return {path.name: decode_image(path.read_bytes(), ImageLimits()) for path in files}


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Prints a heading, and how long its part took."""
    say(f"\n## {title}\n")
    begun = time.perf_counter()
    yield
    say(f"\n({time.perf_counter() - begun:.0f} s)")


def say(line: str) -> None:
    """At once, so that a run that is cut short leaves what it found."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Entry point; 1 if a check failed or a part broke."""
    parser = argparse.ArgumentParser(description="Correctness and speed of the GPU path.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one measurement")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    given = parser.parse_args()
    shown = pictures()
    say(f"PyTorch {torch.__version__}, {roofline.hardware(given.device)}")
    parts: dict[str, Callable[[], bool]] = {
        "agreement": lambda: agreement.report(given.device, shown, say),
        "roofline": lambda: roofline.report(given.device, say),
        "student": lambda: speed.students(given.device, given.seconds, say),
        "pipeline": lambda: speed.pipeline(given.device, given.seconds, shown, say),
        "serve": lambda: speed.serve(given.device, given.seconds, EXAMPLE.read_bytes(), say),
        "streams": lambda: speed.streams(given.device, given.seconds, EXAMPLE.read_bytes(), say),
    }
    good = True
    for name in given.only:
        with timed(name):
            try:
                good &= parts[name]()
            except Exception as error:  # noqa: BLE001 - the other parts are wanted all the same
                good = False
                say(f"{name} broke: {type(error).__name__}: {error}")
    say("\nall checks passed" if good else "\nFAILED: see above")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
