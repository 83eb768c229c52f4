"""A count of what is in flight, and the wait for its end."""

from __future__ import annotations

import asyncio


class InFlight:
    """Counts the blocks that are entered and not left. All of it belongs to the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self.count += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count:
            self._none.set()

    async def ended(self) -> None:
        """Returns when nothing is in flight."""
        await self._none.wait()
