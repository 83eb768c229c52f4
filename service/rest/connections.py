"""How many connections are open, and whose: bounded for each caller before file handles run out."""

from __future__ import annotations

import resource
from collections.abc import Callable

from service.access.callers import network
from service.scheduling.shares import FairBound

_MOST = 4096
"""Also where the process may open a million files: each connection takes memory."""


class Connections:
    """Those of one port, which takes a `part` of the files that the process may open.

    A caller is an address here, as keys come later. One that holds too many loses the connection
    that has waited for it the longest, be it idle or in the middle of a request; only where all of
    them wait for the service is the new one rejected. `on_rejection` is called then.
    """

    def __init__(self, part: float, on_rejection: Callable[[], None] = lambda: None) -> None:
        self._part = part
        self._on_rejection = on_rejection
        self._room = FairBound(_MOST)
        self._open: dict[object, str | None] = {}
        self._waiting: dict[str, dict[object, Callable[[], None]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: object, address: str | None) -> bool:
        """One more of a caller; False if it may not stay."""
        caller = network(address)
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # operators change it as we run
        self._room.bound = min(_MOST, int(files * self._part))
        full = self._room.free <= 0
        if full or (self._room.over_share(caller) and not self._drop_oldest(caller)):
            self._on_rejection()
            return False
        self._open[connection] = caller
        self._room.take(caller)
        return True

    def waits(self, connection: object, drop: Callable[[], None]) -> None:
        """From now on it is the client's turn; `drop` ends the connection."""
        caller = self._open.get(connection)
        if caller is not None:
            self._waiting.setdefault(caller, {}).setdefault(connection, drop)

    def works(self, connection: object) -> None:
        """From now on it is the service's turn."""
        caller = self._open.get(connection)
        if caller is None:
            return
        waiting = self._waiting.get(caller, {})
        waiting.pop(connection, None)
        if not waiting:
            self._waiting.pop(caller, None)

    def remove(self, connection: object) -> None:
        """It is closed."""
        self.works(connection)
        if connection in self._open:
            self._room.give_back(self._open.pop(connection))

    def replace(self, connection: object, other: object) -> None:
        """Another object has taken the connection over, and works."""
        self.works(connection)
        if connection in self._open:
            self._open[other] = self._open.pop(connection)

    def _drop_oldest(self, caller: str) -> bool:
        oldest = next(iter(self._waiting.get(caller, {}).items()), None)
        if oldest is None:
            return False
        connection, drop = oldest
        self.works(connection)
        # Its file is open until the loop runs: until then it counts, and for no caller.
        self._room.give_back(caller)
        self._room.take(None)
        self._open[connection] = None
        drop()
        return True
