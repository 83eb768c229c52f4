"""Who hears how long work waits and what becomes of it; `service.telemetry.metrics` counts it."""

from __future__ import annotations

from typing import Protocol


class QueueObserver(Protocol):
    """Hears of one or more queues; `stage` names the queue. Called from any thread."""

    def queue_depth(self, stage: str, depth: int) -> None:
        """The summed cost that now waits."""

    def queue_wait(self, stage: str, seconds: float) -> None:
        """One item was begun after so many seconds."""

    def shed(self, stage: str, reason: str) -> None:
        """An item was dropped: queue_full, predicted_late, expired or cancelled."""


class BatchObserver(QueueObserver, Protocol):
    """Hears of batches too."""

    def dispatched(self, stage: str, cost: int, reason: str) -> None:
        """A batch left because of `reason`: full, wait, idle or drain."""


class SilentObserver:
    """Hears and does nothing."""

    def queue_depth(self, stage: str, depth: int) -> None: ...

    def queue_wait(self, stage: str, seconds: float) -> None: ...

    def shed(self, stage: str, reason: str) -> None: ...

    def dispatched(self, stage: str, cost: int, reason: str) -> None: ...
