"""A bound in bytes that many holders share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from service.errors import ServiceError, overloaded
from service.scheduling.shares import FairBound


class ByteBudget:
    """So much memory for `what` (named in the rejection); usable from any thread.

    `on_rejection` is called at each rejection, in the thread that is rejected.
    """

    def __init__(self, bound: int, what: str, on_rejection: Callable[[], None]) -> None:
        self._room = FairBound(bound)
        self._what = what
        self._on_rejection = on_rejection
        # Re-entrant, and rejections outside it: docs/decisions/0015-memory.md.
        self._lock = threading.RLock()

    @property
    def bound(self) -> int:
        """The bound in bytes."""
        return self._room.bound

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._room.used

    def check(self, size: int, *, held: int = 0, share: Hashable = None) -> None:
        """Raises overloaded if `take` would, without taking anything."""
        with self._lock:
            fits = self._fits(size, held, share)
        if not fits:
            raise self._rejection()

    def take(self, size: int, *, held: int = 0, share: Hashable = None) -> None:
        """Takes memory. Raises overloaded when the budget, or a share's part of it, is spent.

        `held` is what the same holder has taken before: a holder that is alone always gets
        memory, so that an idle service rejects no one.
        """
        with self._lock:
            fits = self._fits(size, held, share)
            if fits:
                self._room.take(share, size)
        if not fits:
            raise self._rejection()

    def give_back(self, size: int, *, share: Hashable = None) -> None:
        """The counterpart of `take`."""
        with self._lock:
            self._room.give_back(share, size)

    def _fits(self, size: int, held: int, share: Hashable) -> bool:
        return self.used <= held or self._room.fits(share, size)

    def _rejection(self) -> ServiceError:
        self._on_rejection()
        return overloaded(f"too many {self._what}")
