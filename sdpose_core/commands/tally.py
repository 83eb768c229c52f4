"""What a run over sources came to."""

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

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.images + other.images,
            self.frames + other.frames,
            self.people + other.people,
            self.failures + other.failures,
        )

    def sentence(self, seconds: float, files: Iterable[object] = ()) -> str:
        """The summary for a user, with the time it took and where the results are."""
        frames = f", {self.frames} frames of videos" if self.frames else ""
        written = ", ".join(map(str, files))
        return (
            f"{_count(self.images, 'image')}{frames}, {self.people} people, "
            f"{len(self.failures)} failed, in {seconds:.1f} s"
            + (f"; written: {written}" if written else "")
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
