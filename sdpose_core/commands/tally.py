"""Counts of a run over sources, and the summary that a user gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts of a run, or of a part of one: they add up.

    Attributes:
        images: with results.
        frames: of videos, with results.
        people: in all of them.
        failures: of each source that was skipped or broke off, its name and why in one line.
    """

    images: int = 0
    frames: int = 0
    people: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, frame: int | None, people: int) -> None:
        """One more image, or frame of a video, with results."""
        self.images += frame is None
        self.frames += frame is not None
        self.people += people

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.images + other.images,
            self.frames + other.frames,
            self.people + other.people,
            self.failures + other.failures,
        )

    def sentence(self, seconds: float, files: Iterable[object] = ()) -> str:
        """The summary for a user, with the time it took and where the results are."""
        counts = [f"{self.images} image{'s' * (self.images != 1)}"]
        if self.frames:
            counts = [*counts[not self.images :], f"{self.frames} frames of videos"]
        written = ", ".join(map(str, files))
        return (
            f"{', '.join(counts)}, {self.people} people, {len(self.failures)} failed, "
            f"in {seconds:.1f} s" + (f"; written: {written}" if written else "")
        )
