"""A bound in bytes that many holders share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable

from service.errors import ErrorCode, ServiceError
from service.scheduling.shares import over_share


class ByteBudget:
    """So much memory for `what` (named in the refusal); usable from any thread.

    `on_refusal` is called at each refusal, in the thread that is refused.
    """

    def __init__(self, bound: int, what: str, on_refusal: Callable[[], None]) -> None:
        self.bound = bound
        self.used = 0
        self._shares: Counter[Hashable] = Counter()
        self._what = what
        self._on_refusal = on_refusal
        # Re-entrant: the garbage collector may give memory back in the middle of a `take`.
        self._lock = threading.RLock()

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
                self._count(size, share)
        if not fits:
            raise self._refusal()

    def give_back(self, size: int, *, share: Hashable = None) -> None:
        """The counterpart of `take`."""
        with self._lock:
            self._count(-size, share)

    def _count(self, size: int, share: Hashable) -> None:
        self.used += size
        if share is not None:
            self._shares[share] += size
            if not self._shares[share]:
                del self._shares[share]

    def _fits(self, size: int, held: int, share: Hashable) -> bool:
        if self.used <= held:
            return True
        free = self.bound - self.used
        return size <= free and not over_share(self._shares[share], free)

    def _refusal(self) -> ServiceError:
        # Never under the lock: a listener may wait for a lock whose holder collects garbage, and
        # so waits in `give_back` for this one.
        self._on_refusal()
        return ServiceError(ErrorCode.OVERLOADED, f"too many {self._what}", retry_after_s=1.0)
