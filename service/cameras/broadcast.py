"""Broadcast to many subscribers; each has its own bounded buffer, so a slow one delays no other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from service.access.callers import Caller

T = TypeVar("T")


class Subscription(Generic[T]):
    """An async iterator over what is published while it lasts; it ends with the broadcast."""

    def __init__(self, buffer_size: int, caller: Caller) -> None:
        self.caller = caller
        self._buffer: deque[T] = deque(maxlen=buffer_size)
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, item: T) -> None:
        """Adds an item; the oldest is dropped from a full buffer."""
        self._buffer.append(item)
        self._changed.set()

    def end(self) -> None:
        """Ends the iterator after the items in the buffer."""
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> T:
        while not self._buffer:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._buffer.popleft()


class Broadcast(Generic[T]):
    """Gives every published item to every subscription, each of which buffers `buffer_size`."""

    def __init__(self, buffer_size: int) -> None:
        self._buffer_size = buffer_size
        self.subscriptions: set[Subscription[T]] = set()

    def publish(self, item: T) -> None:
        """One more item for all."""
        for subscription in self.subscriptions:
            subscription.put(item)

    @contextmanager
    def subscribe(self, caller: Caller) -> Iterator[Subscription[T]]:
        """Items published from now on, for one caller."""
        subscription: Subscription[T] = Subscription(self._buffer_size, caller)
        self.subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self.subscriptions.discard(subscription)

    def close(self) -> None:
        """Ends every subscription."""
        for subscription in self.subscriptions:
            subscription.end()
