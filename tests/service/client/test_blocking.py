"""Async generators for blocking code."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator

import pytest

from sdpose_client.blocking import iterate


def test_values_come_as_they_are_made_and_errors_come_through() -> None:
    async def two() -> AsyncGenerator[int, None]:
        yield 0
        yield 1
        raise OSError("gone")

    values = iterate(two)
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(values)
    assert not _threads()


def test_leaving_closes_the_generator() -> None:
    closed = []

    async def endless() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    for one in iterate(endless):
        assert one
        break
    assert closed == [True]
    assert not _threads()


def test_ctrl_c_while_it_waits_closes_the_generator() -> None:
    waiting, closed = threading.Event(), []

    async def never() -> AsyncGenerator[int, None]:
        try:
            waiting.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.append(True)

    def interrupt() -> None:
        waiting.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        next(iterate(never))
    assert closed == [True]
    assert not _threads()


def _threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "sdpose-client"]
