"""Observer interface of the queues: depth, waiting time, batches, dropped work."""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias, get_args

ShedReason: TypeAlias = Literal[
    "queue_full",
    "too_many_requests",
    "too_many_streams",
    "too_many_connections",
    "predicted_late",
    "expired",
    "memory",
    "key_limit",
    "cancelled",
]
"""Why work was dropped; the last two are the caller's own doing, and no alarm."""
SHED_REASONS: Final[tuple[ShedReason, ...]] = get_args(ShedReason)


class QueueObserver(Protocol):
    """Observes one or more queues; `stage` names the queue. Called from any thread.

    `service.telemetry.metrics` counts what is reported.
    """

    def queue_depth(self, stage: str, depth: int) -> None:
        """The summed cost that now waits."""

    def queue_wait(self, stage: str, seconds: float) -> None:
        """One item was begun after so many seconds."""

    def shed(self, stage: str, reason: ShedReason) -> None:
        """An item was dropped."""

    def dispatched(self, stage: str, cost: int, reason: str) -> None:
        """A batch left because of `reason`: full, wait, idle or drain."""


class SilentObserver:
    """Hears and does nothing."""

    def queue_depth(self, stage: str, depth: int) -> None: ...

    def queue_wait(self, stage: str, seconds: float) -> None: ...

    def shed(self, stage: str, reason: ShedReason) -> None: ...

    def dispatched(self, stage: str, cost: int, reason: str) -> None: ...
