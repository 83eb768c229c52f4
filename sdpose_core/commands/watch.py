"""Where the progress of a command goes, and from where its stop comes."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """The user of a command."""

    @property
    def stopping(self) -> bool:
        """Looked at between batches; true ends the work with ``Interrupted``."""
        ...

    def report(self, line: str) -> None:
        """One line about a source that was skipped or broke off."""
        ...

    def expect(self, steps: int) -> None:
        """Number of frames of a video, before its first."""
        ...

    def advance(self, steps: int) -> None:
        """Number of images or frames that were done since the last call."""
        ...


class Unwatched:
    """A ``Watch`` of work that no user follows, such as a part on another machine."""

    stopping = False

    def report(self, line: str) -> None:
        """Nothing."""

    def expect(self, steps: int) -> None:
        """Nothing."""

    def advance(self, steps: int) -> None:
        """Nothing."""
