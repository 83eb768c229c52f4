"""Async generators for blocking code."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


def iterate(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """What the async generator gives, which runs on its own event loop in another thread."""
    with start_blocking_portal() as portal:
        iterator = portal.call(make)
        try:
            while (one := portal.call(anext, iterator, None)) is not None:
                yield one
        finally:
            portal.call(iterator.aclose)
