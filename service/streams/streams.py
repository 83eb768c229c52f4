"""The open streams of a service, bounded together over all protocols and cameras."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from service.errors import ErrorCode, ServiceError
from service.scheduling.budget import ByteBudget
from service.scheduling.shares import FairBound
from service.streams.pose_stream import Estimate, PoseStream
from service.streams.resume import Resumable
from service.streams.slot import FrameSlot
from service.telemetry.metrics import Metrics


class Streams:
    """At most `limit` streams. Their frames share `budget` with the bodies of requests, and each
    stream ends after `idle_s` seconds without a frame."""

    def __init__(
        self, limit: int, metrics: Metrics, budget: ByteBudget, idle_s: float, resumable: Resumable
    ) -> None:
        self._room = FairBound(limit)
        self._metrics = metrics
        self._budget = budget
        self._idle_s = idle_s
        self._resumable = resumable
        self._open: set[PoseStream] = set()

    @contextmanager
    def open(self, estimate: Estimate, share: Hashable = None) -> Iterator[PoseStream]:
        """One more stream of a share, within a call; `estimate` poses its frames.

        Raises `ServiceError` overloaded at the maximum, or at what one share may have of it.
        """
        if not self._room.fits(share):
            self._metrics.shed("streams", "too_many_streams")
            raise ServiceError(
                ErrorCode.OVERLOADED,
                f"{len(self._open)} streams are open already",
                retry_after_s=5.0,
            )
        slot = FrameSlot(self._budget, self._idle_s, share)
        stream = PoseStream(slot, estimate, self._metrics, self._resumable)
        self._open.add(stream)
        self._metrics.streams_active.inc()
        try:
            with self._room.taken(share):
                yield stream
        finally:
            self._open.remove(stream)
            self._metrics.streams_active.dec()
            stream.end()

    def close(self, reason: str) -> None:
        """Ends every stream with unavailable after the frame in flight."""
        for stream in self._open:
            stream.close(ServiceError(ErrorCode.UNAVAILABLE, reason, retry_after_s=2.0))
