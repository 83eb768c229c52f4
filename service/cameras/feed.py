"""One source, many who watch: each gets the newest, and a slow one delays no one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from service.access.callers import Caller

T = TypeVar("T")


class Watcher(Generic[T]):
    """An async iterator over what is published while it watches; ends as its feed does."""

    def __init__(self, keep: int, caller: Caller) -> None:
        self.caller = caller
        self._items: deque[T] = deque(maxlen=keep)
        self._news = asyncio.Event()
        self._over = False

    def put(self, item: T) -> None:
        """One more item; the oldest goes where there are too many."""
        self._items.append(item)
        self._news.set()

    def end(self) -> None:
        """Nothing comes any more."""
        self._over = True
        self._news.set()

    def __aiter__(self) -> Watcher[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._items.popleft()


class Feed(Generic[T]):
    """Gives what is published to every watcher, which holds at most `keep` items."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._watchers: set[Watcher[T]] = set()

    def __len__(self) -> int:
        return len(self._watchers)

    def publish(self, item: T) -> None:
        """One more item for everyone."""
        for watcher in self._watchers:
            watcher.put(item)

    @property
    def watchers(self) -> list[Watcher[T]]:
        """Those who watch now."""
        return list(self._watchers)

    @contextmanager
    def watch(self, caller: Caller) -> Iterator[Watcher[T]]:
        """What is published from now on, to someone who calls."""
        watcher: Watcher[T] = Watcher(self._keep, caller)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """Ends what every watcher sees."""
        for watcher in self._watchers:
            watcher.end()
