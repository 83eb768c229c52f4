"""A bound that callers share, so that none fills it alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

SPARE = 4


class FairBound:
    """A bound in any unit, divided fairly between shares. Not thread-safe.

    A share is whatever counts as one caller, such as the name of a key or an address; what None
    holds counts for no caller. A share may hold up to `SPARE` times what stays free: four fifths of
    the bound alone, so that there is always room for the next one, four ninths each of two, and so
    on. These are the dynamic thresholds of Choudhury and Hahne (IEEE/ACM Transactions on
    Networking 6, 1998). A share that holds nothing may always have the last of it.

    Attributes:
        bound: may change at any time.
        used: by all shares.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.used = 0
        self._held: Counter[Hashable] = Counter()

    @property
    def free(self) -> int:
        """The part that no share holds."""
        return self.bound - self.used

    def over_share(self, share: Hashable) -> bool:
        """Whether a share holds so much that it may take no more."""
        held = self._held[share]
        return held > 0 and held >= SPARE * self.free

    def fits(self, share: Hashable, amount: int = 1) -> bool:
        """Whether a share may take so much more."""
        return amount <= self.free and not self.over_share(share)

    def take(self, share: Hashable, amount: int = 1) -> None:
        """Counts so much more for a share, whether it fits or not."""
        self.used += amount
        if share is not None:
            self._held[share] += amount
            if not self._held[share]:
                del self._held[share]

    def give_back(self, share: Hashable, amount: int = 1) -> None:
        """The counterpart of `take`."""
        self.take(share, -amount)

    @contextmanager
    def taken(self, share: Hashable) -> Iterator[None]:
        """Counts one more of a share until the block ends."""
        self.take(share)
        try:
            yield
        finally:
            self.give_back(share)

    def ahead(self, share: Hashable) -> int:
        """How much goes before one more of a share: of another, as much as this one has then."""
        mine = self._held[share] + 1
        return sum(min(held, mine) for held in self._held.values())
