"""Shared parts of the commands of `sdpose bench`: options, images, the bare estimator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdpose_core import PoseEstimator

Images = Annotated[
    list[Path] | None, typer.Argument(help="Image files; unset: the two of ultralytics.")
]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds; each visits every cell twice.")]
Small = Annotated[
    bool, typer.Option("--small", help="Only the people of the images, cut out one by one.")
]
Seconds = Annotated[float, typer.Option(min=0.1, help="Length of one measurement.")]


def bare_estimator() -> PoseEstimator:
    """The models of the settings, without a service."""
    from sdpose_core import PoseEstimator
    from service.settings import load_settings

    settings = load_settings()  # the same that the started service reads
    estimator = PoseEstimator.from_pretrained(
        settings.student,
        settings.detector,
        settings.device,
        backend=settings.backend,
        precision=settings.precision,
        max_batch=settings.max_batch,
        detector_size=settings.detector_size,
        detector_classes=settings.detector_classes,
    )
    estimator.warm_up()
    return estimator


def read_images(images: list[Path] | None, small: bool = False) -> list[bytes]:
    """The image files; `small`: the people of them instead, cut out one by one."""
    if images:
        files = [path.read_bytes() for path in images]
    else:
        from ultralytics.utils import ASSETS

        files = [(ASSETS / name).read_bytes() for name in ("bus.jpg", "zidane.jpg")]
    if not small:
        return files
    from service.bench.serve import one_person_images

    return one_person_images(bare_estimator(), files)


def listed(text: str) -> list[str]:
    """The parts between the commas; none for an empty text."""
    return [part.strip() for part in text.split(",") if part.strip()]


def progress_line(text: str) -> None:
    """Prints progress on standard error, apart from the table."""
    typer.echo(f"  {text}", err=True)
