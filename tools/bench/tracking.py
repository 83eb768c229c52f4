"""`python -m tools.bench tracking`: identities and smoothing where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from sdpose_core.tracking import Smoothing, TrackingConfig
from service.bench.tables import markdown
from tests.tracking.scenes import (
    WALKING,
    Identify,
    PlainIoU,
    scene,
    steadiness,
    switches,
    tracked_by,
)


def run_tracking(scenes: int) -> str:
    """Both tables as Markdown."""
    ways: list[tuple[str, Callable[[], Identify]]] = [
        ("plain IoU with the last box", PlainIoU),
        ("ByteTrack by boxes", tracked_by(0.0)),
        ("ByteTrack by boxes and poses (ours)", tracked_by(TrackingConfig().pose_weight)),
    ]
    cells = [(fps, noise) for fps in (30.0, 10.0, 5.0) for noise in (0.01, 0.03)]
    worlds = {cell: [scene(seed, *cell) for seed in range(scenes)] for cell in cells}
    rows = []
    for name, make in ways:
        row = [name]
        for cell in cells:
            counts = [switches(frames, make()) for frames in worlds[cell]]
            row.append(f"{sum(counts)} in {sum(count > 0 for count in counts)}")
        rows.append(row)
    head = ["identity switches in scenes", *(f"{f:g} fps, noise {n:g}" for f, n in cells)]
    parts = [markdown(head, rows)]
    rows = []
    for fps in (30.0, 10.0):
        for name, smoothing in (("as estimated", None), ("smoothed", Smoothing())):
            for noise in (0.8, 1.5):
                still, walking = (
                    steadiness(smoothing, fps=fps, noise_px=noise, heights_per_s=speed)
                    for speed in (0.0, WALKING)
                )
                rows.append(
                    [
                        f"{name}, {fps:g} fps, noise {noise:g} px",
                        *(f"{value:.2f}" for value in (still.jitter_px, still.error_px)),
                        *(f"{value:.2f}" for value in (walking.jitter_px, walking.error_px)),
                        f"{walking.lag_frames:.2f}",
                    ]
                )
    head = [
        "joints",
        "still: jitter px",
        "error px",
        "walking: jitter px",
        "error px",
        "lag frames",
    ]
    parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def main(
    scenes: Annotated[int, typer.Option(min=1, help="Scenes of three people who cross.")] = 60,
) -> None:
    """Identities and smoothing, on people made by arithmetic; no model and no clock."""
    typer.echo(run_tracking(scenes))
