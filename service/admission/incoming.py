"""Memory bound for gRPC messages that are being read.

gRPC does not report how much of a message has come, so each counts as the maximum size. Of a call
whose message is not yet read it takes no more than the first 64 KiB; so memory is bounded by
reading few at a time. A message takes milliseconds to come, unless its line is slow.
"""

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
    async def one(self, share: Hashable, patience_s: float) -> AsyncIterator[None]:
        """While the message of one call comes; waits for its turn, at most so long.

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

    def _release(self, share: Hashable) -> None:
        self._room.give_back(share)
        for waiting in list(self._waiting):
            who, turn = waiting
            if self._room.fits(who) and not turn.done():
                self._room.take(who)
                self._waiting.remove(waiting)
                turn.set_result(None)
