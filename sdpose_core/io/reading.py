"""Pictures in order, read and decoded ahead of whoever takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from sdpose_core.io.problems import MediaError
from sdpose_core.io.sources import Source, read_picture
from sdpose_core.types import Image

Content: TypeAlias = Image | MediaError | None
"""A picture, why there is none, or None for a video."""


def read_ahead(
    sources: Iterable[Source], ahead: int, readers: int
) -> Generator[tuple[Source, Content], None, None]:
    """Each source with its content, in the order given.

    Args:
        sources: what to read.
        ahead: at most so many are read or being read before they are taken, which bounds memory.
        readers: threads; for stores and servers, each of which waits most of its time, many.
    """
    upcoming = iter(sources)
    waiting: deque[tuple[Source, Future[Content]]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:
        try:
            while True:
                while len(waiting) < ahead and (source := next(upcoming, None)) is not None:
                    waiting.append((source, pool.submit(_content, source)))
                if not waiting:
                    return
                source, content = waiting.popleft()
                yield source, content.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _content(source: Source) -> Content:
    try:
        return None if source.is_video else read_picture(source)
    except MediaError as error:
        return error
