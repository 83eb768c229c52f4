"""Files that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PARTIAL: Final = re.compile(r"\.(.+)\.[0-9a-z_]{8}\.partial", re.DOTALL)


class PartialFile:
    """A hidden file ``.NAME.….partial`` in the folder of ``target``, whose place it may take.

    The name differs between writers, in one process or several; the last to finish wins. A pipe or
    a device, such as ``/dev/stdout``, is written to and never replaced.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = (
            target
            if is_special(target)
            else target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        )

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
    """Whether it is a pipe, a device or, as ``/dev/stdout``, a file that is open already."""
    leads_to = (os.path.realpath(path.parent), os.readlink(path) if path.is_symlink() else "")
    if any(name.startswith("/proc/") for name in leads_to):
        return True
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
        _remove(p for p in folder.glob(".*.partial") if _target_name(p) in names)


def remove_all_partials(folder: Path) -> None:
    """Delete what killed processes left in a folder that no one writes to now."""
    _remove(folder.glob(".*.partial"))


def _remove(partials: Iterable[Path]) -> None:
    for partial in partials:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _target_name(partial: Path) -> str:
    match = _PARTIAL.fullmatch(partial.name)
    return match[1] if match else ""
