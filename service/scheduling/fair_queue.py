"""Fair queue: by priority, and within one by start-time fair queueing between shares."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from math import inf
from typing import Generic, Protocol, TypeAlias, TypeVar

from service.scheduling.shares import FairBound
from service.scheduling.turns import Turn

Order: TypeAlias = tuple[int, float, int]
"""Priority, virtual time of the turn, and number of arrival; the lowest goes first."""


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


class Waiting(Protocol):
    """An item of a queue; `order` is what `FairQueue.order` gave."""

    @property
    def turn(self) -> Turn: ...
    @property
    def order(self) -> Order: ...
    @property
    def cost(self) -> int: ...


W = TypeVar("W", bound=Waiting)


class FairQueue(Generic[W]):
    """Fair queue: items in the order of their turns. Not thread-safe.

    Args:
        bound: of the summed cost; `room` is what still fits.
        changed: called with the summed cost of all that waits.
    """

    def __init__(self, bound: int, changed: Callable[[int], None]) -> None:
        self.room = FairBound(bound)
        self._changed = changed
        self._items: list[W] = []
        self._orders: defaultdict[int, FairOrder] = defaultdict(FairOrder)
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[W]:
        """The items in their order."""
        return iter(self._items)

    @property
    def priority(self) -> float:
        """Priority of the item that goes next; infinite if none waits."""
        return self._items[0].order[0] if self._items else inf

    @property
    def cost(self) -> int:
        """Summed, of all that waits."""
        return self.room.used

    def order(self, turn: Turn) -> Order:
        """Order of the next item with this turn."""
        self._arrivals += 1
        return turn.priority, self._orders[turn.priority].start(turn.share), self._arrivals

    def ahead(self, order: Order) -> int:
        """The summed cost of what would go before."""
        return sum(item.cost for item in self._items if item.order < order)

    def join(self, item: W) -> None:
        """One more waits."""
        self._orders[item.turn.priority].queued(item.turn.share, item.cost)
        insort(self._items, item, key=lambda each: each.order)
        self._count(item, item.cost)

    def begin(self, item: W) -> None:
        """It has its turn."""
        self._leave(item)
        priority, start, _ = item.order
        self._orders[priority].begun(start)

    def withdraw(self, item: W) -> bool:
        """It will not have its turn; False if it does not wait any more."""
        if item not in self._items:
            return False
        self._leave(item)
        self._orders[item.turn.priority].withdrawn(item.turn.share, item.cost)
        return True

    def _leave(self, item: W) -> None:
        self._items.remove(item)
        self._count(item, -item.cost)

    def _count(self, item: W, cost: int) -> None:
        self.room.take(item.turn.share, cost)
        self._changed(self.cost)
