"""A bound in bytes that many holders share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from service.errors import ServiceError, overloaded
from service.scheduling.shares import FairBound


class ByteBudget:
    """So much memory for `what` (named in the refusal); usable from any thread.

    `on_refusal` is called at each refusal, in the thread that is refused.
    """

    def __init__(self, bound: int, what: str, on_refusal: Callable[[], None]) -> None:
        self._room = FairBound(bound)
        self._what = what
        self._on_refusal = on_refusal
        # Re-entrant: the garbage collector may give memory back in the middle of a `take`.
        self._lock = threading.RLock()

    @property
    def bound(self) -> int:
        """In bytes."""
        return self._room.bound

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._room.used

    def check(self, size: int, *, held: int = 0, share: Hashable = None) -> None:
        """Raises overloaded where `take` would, without taking anything."""
        with self._lock:
            fits = self._fits(size, held, share)
        if not fits:
            raise self._refusal()

    def take(self, size: int, *, held: int = 0, share: Hashable = None) -> None:
        """Raises overloaded when the budget is spent, or what one share may have of it.

        `held` is what the same holder has taken before: a holder that is alone always gets what
        it wants, so that an idle service rejects no one.
        """
        with self._lock:
            fits = self._fits(size, held, share)
            if fits:
                self._room.take(share, size)
        if not fits:
            raise self._refusal()

    def give_back(self, size: int, *, share: Hashable = None) -> None:
        """The counterpart of `take`."""
        with self._lock:
            self._room.give_back(share, size)

    def _fits(self, size: int, held: int, share: Hashable) -> bool:
        return self.used <= held or self._room.fits(share, size)

    def _refusal(self) -> ServiceError:
        # Never under the lock: a listener may wait for a lock whose holder collects garbage, and
        # so waits in `give_back` for this one.
        self._on_refusal()
        return overloaded(f"too many {self._what}")
