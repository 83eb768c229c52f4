"""Loaded networks and `fork`, which leaves their threads behind: a child would wait for ever."""

from __future__ import annotations

import os


class ForkedError(RuntimeError):
    """Networks were loaded before a `fork`, and are used after it."""

    def __init__(self) -> None:
        super().__init__(
            "this process was forked after networks had been loaded, whose threads a fork leaves "
            'behind: start workers by "spawn" (multiprocessing.get_context("spawn")), or load '
            "networks only in the workers (gunicorn without --preload)"
        )


_home: int | None = None


def loading() -> None:
    """Networks are about to be loaded or used in this process.

    Raises:
        ForkedError: some were before a fork.
    """
    global _home
    if _home is None:
        _home = os.getpid()
    elif _home != os.getpid():
        raise ForkedError
