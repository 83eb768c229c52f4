"""`python -m tools.bench detection`: person detectors on a COCO annotation file."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from sdpose_core.detector import LoadedDetector, load_detector
from sdpose_core.evaluate.detection import SERVING_SCORE, measure_people, read_annotated
from sdpose_core.types import Image
from service.bench.alternate import in_turns
from service.bench.tables import markdown
from service.cli.bench_shared import listed, progress_line

HEAD = ("detector", "backend", "size", "shape", "AP50", "AP50:95", "recall, taller than 96 px")


def main(
    annotations: Annotated[Path, typer.Argument(help="COCO file of people.")],
    images: Annotated[Path, typer.Argument(help="Folder of its images.")],
    detector: Annotated[str, typer.Option(help="Detectors, separated by commas.")] = "embedded",
    input_size: Annotated[str, typer.Option(help="Sizes, separated by commas.")] = "640",
    shape: Annotated[str, typer.Option(help="square, fitted or both.")] = "square,fitted",
    backend: Annotated[str, typer.Option(help="Backends, separated by commas.")] = "auto",
    precision: Annotated[str, typer.Option(help="Precisions, separated by commas.")] = "auto",
    rounds: Annotated[int, typer.Option(min=0, help="Each times all twice; 0: no times.")] = 2,
) -> None:
    """Accuracy of a person detector, and the time of one image.

    AP50 and AP50:95 as pycocotools computes them (score above 0.001), recall of people taller than
    96 pixels at the serving threshold of 0.25 (overlap at least 0.5), and the median wall-clock and
    processor time of one image. Images marked "fully_annotated": false are left out.
    """
    if not set(listed(shape)) <= {"square", "fitted"}:
        raise ValueError(f"--shape {shape}: square, fitted or both, separated by commas")
    annotated = read_annotated(annotations, images)
    rows: dict[str, list[str]] = {}
    detectors: dict[str, LoadedDetector] = {}
    for setup in itertools.product(*map(listed, (detector, input_size, shape, backend, precision))):
        title = ", ".join(setup)
        progress_line(title)
        name, size, form, *_ = setup
        options: dict[str, Any] = {
            "backend": setup[3],
            "precision": setup[4],
            "input_size": int(size),
            "square": form == "square",
        }
        found = measure_people(load_detector(name, min_score=0.001, **options), annotated)
        each = detectors[title] = load_detector(name, min_score=SERVING_SCORE, **options)
        numbers = (found.ap50, found.ap, found.tall_recall)
        served = f"{each.backend} {each.precision}"
        rows[title] = [each.name, served, size, form, *(f"{number:.3f}" for number in numbers)]
    head = [*HEAD]
    if rounds:
        head += ["ms", "processor ms"]
        pictures = list(annotated.pictures.values())
        work = {title: partial(_times, each, pictures) for title, each in detectors.items()}
        for title, times in in_turns(work, rounds, progress_line).items():
            clocks, busy = zip(*itertools.chain(*times), strict=True)
            rows[title] += [f"{1e3 * median(clocks):.1f}", f"{1e3 * median(busy):.1f}"]
    typer.echo(markdown(head, list(rows.values())))


def _times(detector: LoadedDetector, images: Sequence[Image]) -> list[tuple[float, float]]:
    """Seconds of each image: wall-clock and processor time.

    Processor time is summed over all cores of the host (not of a GPU) and hardly changes when other
    programs run at the same time.
    """
    times = []
    for image in images:
        clock, busy = time.perf_counter(), time.process_time()
        detector.detect([image])
        times.append((time.perf_counter() - clock, time.process_time() - busy))
    return times
