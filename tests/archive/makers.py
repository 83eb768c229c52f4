"""Archives for tests: small pictures, and a stand-in for the models that counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sdpose_core.commands.archive.output import ArchiveOutput
from sdpose_core.io.results.parquet import results_schema
from sdpose_core.types import Image, Poses
from tests.fakes import marked_image
from tests.pictures import encoded

SETTINGS = {"student": "fake", "track": False}


def picture_files(folder: Path, count: int) -> list[Path]:
    """So many PNG files, of 40, 41, ... pixels in width."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(marked_image(number, width=40 + number % 50), "PNG"))
    return paths


def output_in(folder: Path, name: str) -> ArchiveOutput:
    """A file or folder of results."""
    return ArchiveOutput(f"{folder}/{name}", results_schema(SETTINGS))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """All that a file or a folder of parts holds."""
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


@dataclass
class Marks:
    """One person an image, always the same; asks to stop after so many images."""

    stop_after: int | None = None
    seen: int = 0
    reports: list[str] = field(default_factory=list)
    advanced: int = 0
    expected: int = 0

    def __call__(self, images: Sequence[Image]) -> list[Poses]:
        self.seen += len(images)
        points = np.stack([np.full((1, 17), 3.0), np.arange(17.0)[None]], axis=-1)
        return [
            Poses(
                points.astype(np.float32),
                np.full((1, 17), 0.5, np.float32),
                np.array([[1, 2, 4, 6]], np.float32),
                np.array([0.9], np.float32),
                visibility=np.full((1, 17), 0.75, np.float32),
            )
            for _ in images
        ]

    def advance(self, steps: int) -> None:
        self.advanced += steps

    def expect(self, steps: int) -> None:
        self.expected += steps

    def report(self, line: str) -> None:
        self.reports.append(line)

    @property
    def stopping(self) -> bool:
        return self.stop_after is not None and self.seen >= self.stop_after
