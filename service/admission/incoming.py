"""Memory bound for gRPC messages in transit: docs/decisions/0015-memory.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from service.errors import overloaded
from service.scheduling.budget import ByteBudget
from service.scheduling.shares import FairBound


class Incoming:
    """Takes half of `budget` at most, and `largest` bytes of it for each message in transit.

    Slow lines of one share do not keep others out: it waits for its own when it holds too many.
    """

    def __init__(self, budget: ByteBudget, largest: int) -> None:
        self._budget = budget
        self._largest = largest
        self._room = FairBound(max(1, budget.bound // (2 * largest)))
        self._waiting: list[tuple[Hashable, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def message(self, share: Hashable, patience_s: float) -> AsyncIterator[None]:
        """A block that reads one message; waits for its turn for at most `patience_s`.

        Raises `ServiceError` overloaded.
        """
        await self._turn(share, patience_s)
        try:
            self._budget.take(self._largest)
            try:
                yield
            finally:
                self._budget.give_back(self._largest)
        finally:
            self._release(share)

    async def _turn(self, share: Hashable, patience_s: float) -> None:
        if self._room.fits(share):
            self._room.take(share)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((share, turn))
        try:
            async with asyncio.timeout(patience_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # given in the very moment
                self._release(share)
            else:
                self._waiting.remove((share, turn))
            if isinstance(error, TimeoutError):
                raise overloaded("too many messages are on their way in") from None
            raise

    def _release(self, released: Hashable) -> None:
        self._room.give_back(released)
        for waiting in list(self._waiting):
            share, turn = waiting
            if self._room.fits(share) and not turn.done():
                self._room.take(share)
                self._waiting.remove(waiting)
                turn.set_result(None)
