"""Messages on their way in: nobody tells how much of one has come, so each counts as the largest.

gRPC reads of a call whose message is not asked for no more than its first 64 KiB. So memory is
bounded by asking for few at a time; a message takes milliseconds to come, unless its line is slow.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from service.errors import ErrorCode, ServiceError
from service.scheduling.budget import ByteBudget
from service.scheduling.fairness import crowds


class Arrivals:
    """Takes half of `budget` at most, and `largest` bytes of it for each message under way."""

    def __init__(self, budget: ByteBudget, largest: int) -> None:
        self._budget = budget
        self._largest = largest
        self._most = max(1, budget.bound // (2 * largest))
        self._turns = asyncio.Semaphore(self._most)
        self._held: Counter[Hashable] = Counter()

    @asynccontextmanager
    async def one(self, share: Hashable, patience_s: float) -> AsyncIterator[None]:
        """While the message of one call comes; waits for its turn, at most so long.

        Raises `ServiceError` overloaded.
        """
        if crowds(self._held[share], self._most - self._held.total()):
            raise _refusal()
        try:
            async with asyncio.timeout(patience_s):
                await self._turns.acquire()
        except TimeoutError:
            raise _refusal() from None
        try:
            self._budget.take(self._largest)
            self._held[share] += 1
            try:
                yield
            finally:
                self._budget.give_back(self._largest)
                self._held[share] -= 1
                if not self._held[share]:
                    del self._held[share]
        finally:
            self._turns.release()


def _refusal() -> ServiceError:
    return ServiceError(
        ErrorCode.OVERLOADED, "too many messages are on their way in", retry_after_s=1.0
    )
