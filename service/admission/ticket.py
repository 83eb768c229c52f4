"""Ticket of a request: its caller, and when its answer is due."""

from __future__ import annotations

import time
from dataclasses import dataclass

from service.access.callers import Caller
from service.parameters import Priority
from service.scheduling.turns import Turn


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The seconds in which requests are answered.

    Attributes:
        longest_s: at most, whatever a request names.
        default_s: of one that names none, counted from when it has been read: a slow line is not
            the caller's fault.
        max_queue_s: of one that names none, the longest forecast with which it is admitted.
    """

    longest_s: float
    default_s: float
    max_queue_s: float


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request, as known from its headers; made by `Door.ticket`.

    Attributes:
        caller: with its key's limits.
        deadlines: of the service.
        due: the `time.monotonic()` moment that its headers name; None if they name none.
        started: the moment at which it came.
    """

    caller: Caller
    deadlines: Deadlines
    due: float | None
    started: float

    @property
    def patience_s(self) -> float:
        """Seconds until its answer is due, as far as its headers state."""
        if self.due is not None:
            return max(0.0, self.due - time.monotonic())
        usual = min(self.deadlines.default_s, self.deadlines.max_queue_s)
        return min(usual, self.deadlines.longest_s)

    def turn(self, priority: Priority | None = None, deadline_ms: float | None = None) -> Turn:
        """Its turn in every queue, with what it was found to name when it was read.

        Raises `ServiceError` permission_denied for a priority above the caller's.
        """
        latest = self.started + self.deadlines.longest_s
        if deadline_ms is not None:
            due = self.started + deadline_ms / 1e3
        elif self.due is not None:
            due = self.due
        else:
            due = time.monotonic() + self.deadlines.default_s
        return Turn(self.caller.share, self.caller.priority(priority).order, min(due, latest))
