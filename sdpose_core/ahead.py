"""Work that threads do ahead of its use, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Made = TypeVar("Made")


def ahead(
    work: Callable[[T], Made], items: Iterable[T], *, workers: int, limit: int, name: str
) -> Generator[Made, None, None]:
    """Results of ``work`` for each item, in the order of ``items``.

    Closing it cancels what has not begun. An error of ``work`` is raised at its item's turn.

    Args:
        items: Taken in the caller's thread; may be endless.
        workers: Threads; with 0 everything runs in the caller's.
        limit: Maximum results that are being made or wait, which bounds memory; at least 1.
        name: Of the threads.
    """
    if workers == 0:
        yield from map(work, items)
        return
    upcoming = iter(items)
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix=name) as pool:
        try:
            while True:
                for item in upcoming:
                    waiting.append(pool.submit(work, item))
                    if len(waiting) >= limit:
                        break
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
