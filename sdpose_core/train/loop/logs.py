"""A run's logs: CSV, TensorBoard and lines or a bar on the terminal."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from sdpose_core.files.whole_file import whole_file
from sdpose_core.train.recipe.progress import Counters

COLUMNS = ("step", "samples", "seconds", "stage", "name", "value")


class RunLog:
    """Writes scalars as rows of ``log.csv`` (long form) and to TensorBoard; shows progress.

    A context manager. On a terminal progress is a bar, elsewhere a line per report.

    Args:
        folder: of the run.
        step: that the run goes on from. What a killed process logged after it will be logged again
            and is left out; -1 leaves out all.
        console: for the lines.
    """

    def __init__(self, folder: Path, step: int = -1, console: Console | None = None) -> None:
        self._console = console or Console()
        self._begun: tuple[float, float] | None = None
        path = folder / "log.csv"
        kept = _rows_until(path, step)
        with whole_file(path) as partial, partial.open("w", newline="") as file:
            csv.writer(file).writerows((COLUMNS, *kept))
        self._file = path.open("a", newline="")
        self._rows = csv.writer(self._file)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>5.1f}%"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("training", total=1.0)

    def __enter__(self) -> RunLog:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._board.close()
        self._file.close()

    def scalars(self, values: Mapping[str, float], at: Counters) -> None:
        """Write named values of one point of the run."""
        for name, value in values.items():
            place = (at.step, at.samples, f"{at.seconds:.1f}", at.stage)
            self._rows.writerow((*place, name, f"{value:.6g}"))
            self._board.add_scalar(name, value, at.step)
        self._file.flush()

    def progress(self, text: str, done: float) -> None:
        """Show the run's progress, ``done`` in 0..1."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text, completed=min(done, 1.0))
        else:
            self.line(f"{100 * done:5.1f}% {text}{self._left(done)}")

    def _left(self, done: float) -> str:
        """The time left, as the run has gone since the first report of this call."""
        now = time.monotonic()
        self._begun = self._begun or (now, done)
        began, first = self._begun
        if done <= first:
            return ""
        seconds = (now - began) * (1 - done) / (done - first)
        return f", {seconds / 60:.0f} min left" if seconds > 90 else f", {seconds:.0f} s left"

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _rows_until(path: Path, step: int) -> list[list[str]]:
    """The whole rows of a log up to a step."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS)]
    return [row for row in rows if row[0].isdecimal() and int(row[0]) <= step]


def progress_line(counters: Counters, loss: float, rate: float, speed: float) -> str:
    """The progress line while a stage runs; ``speed`` in crops per second."""
    return (
        f"stage {counters.stage + 1} step {counters.step} samples {counters.samples} "
        f"loss {loss:.4f} rate {rate:.2e} {speed:.1f} crops/s"
    )


def score_line(counters: Counters, values: Mapping[str, float]) -> str:
    """The line after a score."""
    return (
        f"step {counters.step} samples {counters.samples} minutes {counters.seconds / 60:.1f} "
        + " ".join(f"{name}={value:.4f}" for name, value in values.items())
    )
