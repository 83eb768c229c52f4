"""What waits for its turn: by priority, and within one the shares go round."""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from math import inf
from typing import Generic, Protocol, TypeAlias, TypeVar

from service.scheduling.fairness import FairOrder, crowds

Order: TypeAlias = tuple[int, float, int]
"""Priority, virtual time of the turn, and number of arrival; the lowest goes first."""


class Waiting(Protocol):
    """An item of a line; `order` is what `Line.order` gave."""

    @property
    def order(self) -> Order: ...
    @property
    def share(self) -> Hashable: ...
    @property
    def cost(self) -> int: ...


W = TypeVar("W", bound=Waiting)


class Line(Generic[W]):
    """Not thread-safe; `changed` is called with the summed cost of all that waits."""

    def __init__(self, changed: Callable[[int], None]) -> None:
        self.cost = 0
        self._changed = changed
        self._items: list[W] = []
        self._held: Counter[Hashable] = Counter()
        self._turns: defaultdict[int, FairOrder] = defaultdict(FairOrder)
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[W]:
        """The items in their order."""
        return iter(self._items)

    @property
    def priority(self) -> float:
        """Of the item that goes next; infinite where none waits."""
        return self._items[0].order[0] if self._items else inf

    def order(self, share: Hashable, priority: int = 0) -> Order:
        """Of the next item of a share; lower priorities go first."""
        self._arrivals += 1
        return priority, self._turns[priority].start(share), self._arrivals

    def ahead(self, order: Order) -> int:
        """The summed cost of what would go before."""
        return sum(item.cost for item in self._items if item.order < order)

    def full(self, share: Hashable, cost: int, bound: int) -> bool:
        """Whether one more item of a share is too much for a line of at most `bound`."""
        free = bound - self.cost
        return cost > free or crowds(self._held[share], free)

    def join(self, item: W) -> None:
        """One more waits."""
        self._turns[item.order[0]].queued(item.share, item.cost)
        insort(self._items, item, key=lambda each: each.order)
        self._count(item, item.cost)

    def begin(self, item: W) -> None:
        """It has its turn."""
        self._leave(item)
        priority, start, _ = item.order
        self._turns[priority].begun(start)

    def withdraw(self, item: W) -> bool:
        """It will not have its turn; False where it does not wait any more."""
        if item not in self._items:
            return False
        self._leave(item)
        self._turns[item.order[0]].withdrawn(item.share, item.cost)
        return True

    def _leave(self, item: W) -> None:
        self._items.remove(item)
        self._count(item, -item.cost)

    def _count(self, item: W, cost: int) -> None:
        self.cost += cost
        self._held[item.share] += cost
        if not self._held[item.share]:
            del self._held[item.share]
        self._changed(self.cost)
