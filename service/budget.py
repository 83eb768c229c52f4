"""A bound in bytes that many holders share."""

from __future__ import annotations

import threading

from service.errors import ErrorCode, ServiceError


class ByteBudget:
    """So much memory for `what` (named in the refusal); usable from any thread."""

    def __init__(self, bound: int, what: str) -> None:
        self.bound = bound
        self.used = 0
        self._what = what
        # Re-entrant: the garbage collector may give memory back in the midst of a `take`.
        self._lock = threading.RLock()

    def check(self, size: int, *, held: int = 0) -> None:
        """Raises overloaded where `take` would, without taking anything."""
        with self._lock:
            self._check(size, held)

    def take(self, size: int, *, held: int = 0) -> None:
        """Raises overloaded when the budget is spent.

        `held` is what the same holder has taken before: a holder that is alone always gets what
        it wants, so that an idle service refuses nobody.
        """
        with self._lock:
            self._check(size, held)
            self.used += size

    def give_back(self, size: int) -> None:
        """The counterpart of `take`."""
        with self._lock:
            self.used -= size

    def _check(self, size: int, held: int) -> None:
        if self.used > held and self.used + size > self.bound:
            raise ServiceError(ErrorCode.OVERLOADED, f"too many {self._what}", retry_after_s=1.0)
