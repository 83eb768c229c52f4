"""`python -m tools.bench gpu`: is the GPU path right, and how fast is it? Under eight minutes.

Correctness comes first, against the CPU in float32. Then the tables: what the hardware would allow,
students, pipeline by people, the service under load, cameras. The status is 1 if a check failed,
which ends nothing. `--device cpu --seconds 0.1` tries the script without a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer

from sdpose_core.types import Image
from sdpose_core.vision.image_files import ImageLimits, decode_image
from service.cli.bench_shared import listed
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
    """Prints at once, so that a run that is ended early leaves its results."""
    typer.echo(line)


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu.")] = "cuda",
    seconds: Annotated[float, typer.Option(help="Length of one measurement.")] = 0.5,
    only: Annotated[str, typer.Option(help="Parts, separated by commas.")] = ",".join(SECTIONS),
) -> None:
    """Whether a GPU answers as the CPU does, and how fast; status 1 if a check failed."""
    chosen = listed(only)
    unknown = set(chosen) - set(SECTIONS)
    if unknown:
        raise ValueError(f"--only {', '.join(unknown)}: expected some of {', '.join(SECTIONS)}")
    shown = pictures()
    say(f"PyTorch {torch.__version__}, {roofline.hardware(device)}")
    parts: dict[str, Callable[[], bool]] = {
        "agreement": lambda: agreement.report(device, shown, say),
        "roofline": lambda: roofline.report(device, say),
        "student": lambda: speed.students(device, seconds, say),
        "pipeline": lambda: speed.pipeline(device, seconds, shown, say),
        "serve": lambda: speed.serve(device, seconds, EXAMPLE.read_bytes(), say),
        "streams": lambda: speed.streams(device, seconds, EXAMPLE.read_bytes(), say),
    }
    good = True
    for name in chosen:
        with timed(name):
            try:
                good &= parts[name]()
            except Exception as error:  # noqa: BLE001 - the other parts run all the same
                good = False
                say(f"{name} broke: {type(error).__name__}: {error}")
    say("\nall checks passed" if good else "\nFAILED: see above")
    raise typer.Exit(0 if good else 1)
