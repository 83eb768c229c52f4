"""Files that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PartialFile:
    """A hidden file ``.NAME.….partial`` in the folder of ``target``, whose place it may take.

    The name differs between writers, in one process or several; the last to finish wins.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")

    def finish(self) -> None:
        """Give the file its name; raises ``OSError``."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name without content
        self.path.replace(self.target)

    def discard(self) -> None:
        """Delete what is left of it; does nothing after ``finish``."""
        self.path.unlink(missing_ok=True)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """The path to write to; it takes the place of ``target`` at the end of the block.

    After an exception ``target`` is as before. Raises ``OSError`` if the folder does not exist or
    cannot be written.
    """
    partial = PartialFile(target)
    try:
        yield partial.path
        partial.finish()
    finally:
        partial.discard()


def remove_partials(folder: Path) -> None:
    """Delete the partial files of a killed process."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)
