"""No caller starves another: the work goes round by share, and nobody fills the room alone.

A share is whatever counts as one caller, such as the name of a key or an address.
"""

from __future__ import annotations

from collections.abc import Hashable

SPARE = 4


def crowds(held: float, free: float) -> bool:
    """Whether a share that holds `held` of a room may take no more of the `free` rest.

    It may hold up to `SPARE` times what stays free: four fifths of the room where it is alone, so
    that there is always a place for the next one, four ninths each of two, and so on. These are
    the dynamic thresholds of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6, 1998).
    A share that holds nothing may always have the last place.
    """
    return held > 0 and held >= SPARE * free


class FairOrder:
    """Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) over the items of one queue.

    Every item gets the virtual time at which its share's turn comes; the lowest goes first. Shares
    with work waiting so get equal amounts of it, whatever each has queued. Not thread-safe.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: dict[Hashable, float] = {}

    def start(self, share: Hashable) -> float:
        """When the next item of a share would have its turn."""
        return max(self._now, self._ends.get(share, 0.0))

    def queued(self, share: Hashable, cost: float) -> float:
        """One more item of a share; returns `start` of it."""
        start = self.start(share)
        self._ends[share] = start + cost
        return start

    def begun(self, start: float) -> None:
        """The item that was given `start` has its turn."""
        if start > self._now:
            self._now = start
            if len(self._ends) > 64:  # of others nothing need be known: they would start now
                self._ends = {share: end for share, end in self._ends.items() if end > start}

    def withdrawn(self, share: Hashable, cost: float) -> None:
        """An item will not have its turn; later ones of its share need not pay for it."""
        if share in self._ends:
            self._ends[share] -= cost
