"""Files that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PARTIAL: Final = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial", re.DOTALL)


class PartialFile:
    """A hidden file ``.NAME.….partial`` in the folder of ``target``, whose place it may take.

    The name differs between writers, in one process or several; the last to finish wins. A pipe or
    a device, such as ``/dev/stdout``, is written to and never replaced.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target if is_special(target) else target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")

    def finish(self) -> None:
        """Give the file its name; raises ``OSError``."""
        if self.path == self.target:
            return
        with self.path.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name without content
        self.path.replace(self.target)

    def discard(self) -> None:
        """Delete what is left of it; does nothing after ``finish``."""
        if self.path != self.target:
            self.path.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Whether it is a pipe, a device or the like."""
    return path.exists() and not path.is_file() and not path.is_dir()


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


def remove_partials(targets: Iterable[Path]) -> None:
    """Delete what killed processes left of these files, which no one writes to now."""
    folders: dict[Path, set[str]] = {}
    for target in targets:
        folders.setdefault(target.parent, set()).add(target.name)
    for folder, names in folders.items():
        for partial in folder.glob(".*.partial"):
            if (match := _PARTIAL.fullmatch(partial.name)) and match[1] in names:
                partial.unlink(missing_ok=True)


def remove_all_partials(folder: Path) -> None:
    """Delete what killed processes left in a folder that no one writes to now."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)
