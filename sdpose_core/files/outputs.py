"""Where results go: never in the place of what is read, and one run at a time into one place."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from sdpose_core.files.whole_file import is_special, remove_all_partials, remove_partials

_NO_LOCKS: Final = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Error numbers of a drive without locks, as some network drives are."""


class OutputError(ValueError):
    """Results cannot go where they should; the message is one sentence."""


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Look, before anything is written, whether an output would take the place of an input.

    Files are compared and not their names, so links and other spellings of a name are found too.

    Raises:
        OutputError: one would, or two outputs would go to one place.
    """
    places: dict[tuple[object, ...], Path] = {}
    there: dict[tuple[int, int], Path] = {}
    for output in outputs:
        if (other := places.setdefault(_place(output), output)) is not output:
            raise OutputError(f"{output}: {other} is the same file; give each output its own")
        if found := _file(output):
            there[found] = output
    for path in inputs if there else ():
        if (found := _file(path)) and found in there:
            output = there[found]
            what = "this input" if path == output else f"the input {path}, which is the same file"
            raise OutputError(f"{output}: results would replace {what}; give another output")


def check_free(outputs: Iterable[Path], force: bool) -> None:
    """Look, before anything is written, whether an output is there already.

    Pipes and devices, which are written to and not replaced, are no matter.

    Raises:
        OutputError: one is, and ``force`` is false.
    """
    if force:
        return
    found = [path for path in outputs if os.path.lexists(path) and not is_special(path)]
    if found:
        more = f", and {len(found) - 1} more of the outputs," if found[1:] else ""
        verb = (
            "exist; pass --force to replace them" if more else "exists; pass --force to replace it"
        )
        raise OutputError(f"{found[0]}{more} {verb}")


def _file(path: Path) -> tuple[int, int] | None:
    """The file that a path leads to; None for one that is not there."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino


def _place(path: Path) -> tuple[object, ...]:
    """The same for two names that some file system takes for one, in one folder."""
    path = Path(os.path.realpath(path.parent), path.name)
    names = []
    while (folder := _file(path.parent)) is None:
        names.append(path.name)
        path = path.parent
    return folder, *(unicodedata.normalize("NFC", n).casefold() for n in (path.name, *names[::-1]))


@contextmanager
def only_run(
    place: Path,
    *,
    folder: bool = False,
    name: str | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Within it, no other process that asks as we do writes to a place.

    By a lock on a hidden file, beside a file or in a folder, which the system frees when the
    process dies, however it dies; on a drive that knows no locks nothing is prevented. What a
    killed process left, the hidden file and partial files, is removed.

    Args:
        place: the file or folder.
        folder: whether it is a folder; it is made, and goes again if nothing comes into it.
        name: how to call it in messages; the place itself if not given.
        on_wait: called before waiting for the other process; None raises instead.

    Raises:
        OutputError: another process writes there.
        OSError: the place cannot be written to.
    """
    if folder and place.exists() and not place.is_dir():
        raise OutputError(f"{name or place}: expected a folder, and this is a file; give another")
    if is_special(place):
        yield
        return
    lock = place / ".lock" if folder else place.with_name(f".{place.name}.lock")
    file = _locked(lock, name or str(place), on_wait)
    try:
        if folder:
            remove_all_partials(place)
        else:
            remove_partials([place])
        yield
    finally:
        lock.unlink(missing_ok=True)  # while it is ours, so that no one else loses it
        file.close()
        if folder:
            with suppress(OSError):  # results are in it
                place.rmdir()


def _locked(lock: Path, name: str, on_wait: Callable[[], None] | None) -> IO[str]:
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a+")
        try:
            _flock(file, name, on_wait)
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file
        except FileNotFoundError:
            pass  # its holder ended, and took the file away, between our two looks
        except BaseException:
            file.close()
            raise
        file.close()


def _flock(file: IO[str], name: str, on_wait: Callable[[], None] | None) -> None:
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                file.seek(0)
                raise OutputError(
                    f"{name}: another run is writing to it ({file.read()}); wait for its end, or "
                    "give another output"
                ) from None
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
