"""The turn of one piece of work: one value for every queue."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Turn:
    """When work is due.

    Attributes:
        share: whose turn it takes; whatever counts as one caller.
        priority: lower goes first; within one, shares go round.
        deadline: a `time.monotonic()` moment, after which it is dropped; None: never.
    """

    share: Hashable = None
    priority: int = 0
    deadline: float | None = None


ANY_TIME: Final = Turn()
"""The turn of work without a caller."""
