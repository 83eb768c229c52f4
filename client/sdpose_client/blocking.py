"""Async generators for blocking code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def iterate(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """The values of an async generator that runs on its own event loop in another thread.

    Raises what the generator raises.
    """
    with _loop_in_a_thread() as loop:
        values = make()

        async def following() -> T | None:
            return await anext(values, None)

        step = asyncio.run_coroutine_threadsafe(following(), loop)
        try:
            while (one := step.result()) is not None:
                yield one
                step = asyncio.run_coroutine_threadsafe(following(), loop)
        finally:
            # After Ctrl-C in the wait above, the end of the loop cancels the step and closes.
            if step.done():
                asyncio.run_coroutine_threadsafe(values.aclose(), loop).result()


@contextmanager
def _loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def until_over() -> None:
        over = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), over))
        await over.wait()

    thread = threading.Thread(
        target=lambda: asyncio.run(until_over()), name="sdpose-client", daemon=True
    )
    thread.start()
    loop, over = started.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
