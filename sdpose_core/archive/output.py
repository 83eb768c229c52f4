"""Where an archive's results go: parts of whole sources, and one file from them if wanted.

A part is named by its place in the run and by what it holds, and appears whole or not at all. So
work that is done twice, because a worker died before it could say that it was done, replaces its
part by the same; and what was done before a run is known from the parts alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from sdpose_core.archive.schema import SchemaError, check_schema
from sdpose_core.io import remote
from sdpose_core.io.problems import MediaError
from sdpose_core.io.sources import Source, identity
from sdpose_core.whole_file import remove_partials, whole_file

_PART: Final = re.compile(r"part-(\d{4,})-\d{6,}-[0-9a-f]{12}\.parquet")


_PROBE: Final = ".sdpose-may-write"


class OutputError(ValueError):
    """Results cannot go where they should; the message is one sentence."""


@dataclass(frozen=True)
class Part:
    """One part of a run: the number of both, and the sources that it is about."""

    run: int
    number: int
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """Of its file; the same whoever writes it, and whenever."""
        named = "\0".join(source.name for source in self.sources).encode()
        digest = hashlib.sha256(named).hexdigest()[:12]
        return f"part-{self.run:04d}-{self.number:06d}-{digest}.parquet"


@dataclass(frozen=True)
class ArchiveOutput:
    """A Parquet file, or a folder of parts, on disk or in a store.

    Args:
        target: path or address; it stands for one file where it ends in ``.parquet``.
        schema: of all that is written, with its metadata.
    """

    target: str
    schema: pa.Schema

    @property
    def is_file(self) -> bool:
        """Whether one file is wanted, not a folder of parts."""
        return self.target.endswith(".parquet")

    @property
    def _folder(self) -> str:
        """Of the parts; for one file they are kept beside it until it is complete."""
        return f"{self.target}.parts" if self.is_file else self.target.rstrip("/")

    @cached_property
    def _files(self) -> Any:
        """The store's file system; None for the disk."""
        if not remote.scheme(self.target):
            return None
        if not remote.is_remote(self.target) or remote.scheme(self.target) in remote.WEB:
            raise OutputError(f"{self.target}: results cannot be written to such an address")
        try:
            return remote.split(self.target)[0]
        except MediaError as error:
            raise OutputError(f"{self.target}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"target": self.target, "schema": self.schema}

    def begin(self, resume: bool) -> tuple[int, frozenset[str]]:
        """Look at what is there.

        Returns:
            The number of this run, and the identities of the sources that are done.

        Raises:
            OutputError: something is there and `resume` is false, or it cannot be read or written.
            SchemaError: what is there is of another kind, version or making.
        """
        with self._told():
            parts = self._parts()
            file = [self.target] if self.is_file and self._exists(self.target) else []
            if not self.is_file and (foreign := self._strangers()):
                raise OutputError(f"{self.target}: holds {foreign}, which is none of our parts")
            if (file or parts) and not resume:
                what = "exists" if file or not self.is_file else "is half done by an earlier run"
                raise OutputError(
                    f"{self.target}: {what}; add --resume to do only what is not in it, or give "
                    "another output"
                )
            done = set[str]()
            for name in (*file, *parts):
                done |= self._inputs(name)
            self._make_folder()
            runs = [int(match[1]) for name in parts if (match := _PART.search(name))]
            return max(runs, default=0) + 1, frozenset(done)

    def wanted(self, sources: Sequence[Source], done: frozenset[str]) -> list[Source]:
        """The sources that are not done."""
        return [source for source in sources if source.identity not in done]

    @contextlib.contextmanager
    def part(self, part: Part) -> Iterator[pq.ParquetWriter]:
        """What writes a part; it takes its place at the end of the block, or never.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with self._writer(f"{self._folder}/{part.name}") as writer:
                yield writer
        except (OSError, pa.ArrowException) as error:  # sources raise `MediaError`
            raise OutputError(f"{self.target}: {remote.reason(error)}") from error

    def finish(self) -> None:
        """All is done: of parts becomes the one file, if that is what is wanted.

        Raises:
            OutputError: it cannot be written; the parts are still there.
        """
        if not self.is_file:
            return
        with self._told():
            parts = self._parts()
            before = [self.target] if self._exists(self.target) else []
            if before and not parts:
                return
            with self._writer(self.target) as writer:
                for name in (*before, *parts):
                    with self._opened(name) as file:
                        for batch in pq.ParquetFile(file).iter_batches():
                            writer.write_batch(batch.cast(self.schema))
            for name in parts:
                self._remove(name)
            self._remove_folder()

    def leave(self) -> None:
        """Of a run that never wrote a part nothing stays; parts do."""
        self._remove_folder()

    def _inputs(self, name: str) -> set[str]:
        with self._opened(name) as file:
            try:
                parquet = pq.ParquetFile(file)
            except pa.ArrowInvalid as error:
                raise SchemaError(f"{name}: not a Parquet file") from error
            check_schema(parquet.schema_arrow, self.schema, name)
            found = set[str]()
            for batch in parquet.iter_batches(columns=["input"]):
                found.update(batch.column(0).unique().to_pylist())
        return {each if remote.is_remote(each) else identity(Path(each)) for each in found}

    @contextlib.contextmanager
    def _writer(self, name: str) -> Iterator[pq.ParquetWriter]:
        with contextlib.ExitStack() as stack:
            if self._files is None:
                target: Any = str(stack.enter_context(whole_file(Path(name))))
            else:  # a store shows an object when it is complete, and not before
                target = self._files.open(_key(name), "wb")
                stack.push(lambda kind, *_: _abandon(target) if kind else target.close())
            writer = stack.enter_context(pq.ParquetWriter(target, self.schema, compression="zstd"))
            yield writer

    def _opened(self, name: str) -> Any:
        return open(name, "rb") if self._files is None else self._files.open(_key(name), "rb")

    def _parts(self) -> list[str]:
        return [f"{self._folder}/{name}" for name in self._listed() if _PART.fullmatch(name)]

    def _strangers(self) -> str:
        return next((name for name in self._listed() if not _PART.fullmatch(name)), "")

    def _listed(self) -> list[str]:
        if self._files is None:
            names = os.listdir(self._folder) if os.path.isdir(self._folder) else []
            return sorted(name for name in names if not name.startswith("."))
        try:
            found = self._files.ls(_key(self._folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        keys = (each.rstrip("/").rsplit("/", 1)[-1] for each in found)
        return sorted(name for name in keys if name and name != _PROBE)

    def _exists(self, name: str) -> bool:
        return os.path.lexists(name) if self._files is None else self._files.exists(_key(name))

    def _make_folder(self) -> None:
        """Be sure that parts can be written, before any work is done."""
        if self._files is None:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            remove_partials(Path(self._folder))
        else:
            probe = f"{_key(self._folder)}/{_PROBE}"
            self._files.pipe_file(probe, b"")
            self._files.rm_file(probe)

    def _remove(self, name: str) -> None:
        if self._files is None:
            os.remove(name)
        else:
            self._files.rm_file(_key(name))

    def _remove_folder(self) -> None:
        with contextlib.suppress(OSError):  # parts, or what is not ours, lies in it
            if self._files is None:
                os.rmdir(self._folder)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Failures of the disk or the store in one sentence."""
        try:
            yield
        except (OutputError, SchemaError):
            raise
        except Exception as error:
            if self._files is None and not isinstance(error, OSError | pa.ArrowException):
                raise
            raise OutputError(f"{self.target}: {remote.reason(error)}") from error


def _key(address: str) -> str:
    return address.partition("://")[2]


def _abandon(file: Any) -> None:
    """Of an object that is half written nothing appears."""
    file.discard()
    with contextlib.suppress(AttributeError):
        file.closed = True  # or closing it, once it is collected, would send the rest
