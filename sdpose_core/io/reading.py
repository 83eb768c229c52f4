"""Images in order, read and decoded ahead of their use."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TypeAlias

from sdpose_core.ahead import ahead
from sdpose_core.io.problems import MediaError
from sdpose_core.io.sources import Source, read_picture
from sdpose_core.types import Image

Content: TypeAlias = Image | MediaError | None
"""An image, why there is none, or None for a video."""


def read_ahead(
    sources: Iterable[Source], limit: int, readers: int
) -> Generator[tuple[Source, Content], None, None]:
    """Each source with its content, in the order given.

    Args:
        sources: what to read.
        limit: maximum number that are being read or wait to be taken, which bounds memory.
        readers: threads; for stores and servers, each of which waits most of its time, many.
    """
    return ahead(_with_content, sources, workers=readers, limit=limit, name="reader")


def _with_content(source: Source) -> tuple[Source, Content]:
    try:
        return source, None if source.is_video else read_picture(source)
    except MediaError as error:
        return source, error
