"""Results of an archive: parts of whole sources, and one file of them if requested.

A part is named by its place in the run and by what it holds, and appears whole or not at all. So
work that is done twice, because a worker died before it could say that it was done, replaces its
part by the same; and what was done before a run is known from the parts alone. If a source is
in several of them, because a run was killed or went on elsewhere, or did it again, the last holds.
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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sdpose_core.files.outputs import OutputError, only_run
from sdpose_core.files.whole_file import remove_partials, whole_file
from sdpose_core.io import remote
from sdpose_core.io.problems import MediaError
from sdpose_core.io.results.parquet import SchemaError, check_schema, open_parquet
from sdpose_core.io.sources import Source

_PART: Final = re.compile(r"part-(\d{4,})-\d{6,}-[0-9a-f]{12}\.parquet")


_PROBE: Final = ".sdpose-may-write"


@dataclass(frozen=True)
class Part:
    """One part of a run: the number of both, and the sources that it is about."""

    run: int
    number: int
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """Name of its file: the same from every writer and at any time."""
        named = "\0".join(source.identity for source in self.sources).encode()
        digest = hashlib.sha256(named).hexdigest()[:12]
        return f"part-{self.run:04d}-{self.number:06d}-{digest}.parquet"


@dataclass(frozen=True)
class ArchiveOutput:
    """A Parquet file, or a folder of parts, on disk or in a store.

    Args:
        target: path or address; it stands for one file if it ends in ``.parquet``.
        schema: of all that is written, with its metadata.
    """

    target: str
    schema: pa.Schema

    @property
    def is_file(self) -> bool:
        """Whether the target is one file, not a folder of parts."""
        return self.target.lower().endswith(".parquet")

    @property
    def _folder(self) -> str:
        """Folder of the parts; for one file they are kept beside it until it is complete."""
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

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it no other run writes here; of one that wrote nothing no folder stays.

        On disk only: stores have no locks that end with a process.

        Raises:
            OutputError: another run is writing here, or it cannot be written to.
        """
        if self._files is not None:
            yield
            return
        folder = Path(self._folder)
        with contextlib.ExitStack() as stack:
            with self._one_sentence():
                stack.enter_context(only_run(folder, folder=True, name=self.target))
                remove_partials([Path(self.target)])
            yield

    def begin(
        self, resume: bool, retry_failed: bool = False, *, force: bool = False
    ) -> tuple[int, frozenset[str]]:
        """Look at what is there.

        Args:
            resume: keep it, and do the rest.
            retry_failed: do again what failed.
            force: remove it, and do everything.

        Returns:
            The number of this run, and the identities of the sources that are done; of those that
            failed too, unless they are tried again.

        Raises:
            OutputError: something is there and neither `resume` nor `force` is true, or it cannot
                be read or written.
            SchemaError: what is there is of another kind, version or making.
        """
        with self._one_sentence():
            parts = self._parts()
            file = [self.target] if self.is_file and self._exists(self.target) else []
            if not self.is_file and (foreign := self._strangers()):
                raise OutputError(f"{self.target}: holds {foreign}, which is none of our parts")
            if force:
                for name in (*file, *parts):
                    self._remove(name)
                file, parts = [], []
            if (file or parts) and not resume:
                what = "exists" if file or not self.is_file else "is half done by an earlier run"
                raise OutputError(
                    f"{self.target}: {what}; add --resume to do only what is not in it, or --force "
                    "to replace it"
                )
            failed: dict[str, bool] = {}
            for name in (*file, *parts):
                failed |= self._sources(name)
            self._make_folder()
            done = (source for source, bad in failed.items() if not (bad and retry_failed))
            return max(map(_run_of, parts), default=0) + 1, frozenset(done)

    def remaining(self, sources: Sequence[Source], done: frozenset[str]) -> list[Source]:
        """The sources that are not done."""
        return [source for source in sources if source.identity not in done]

    @contextlib.contextmanager
    def part(self, part: Part) -> Iterator[pq.ParquetWriter]:
        """Writer of a part; the file appears at the end of the block, or never.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with self._writer(f"{self._folder}/{part.name}") as writer:
                yield writer
        except (OSError, pa.ArrowException) as error:  # sources raise `MediaError`
            raise OutputError(f"{self.target}: {remote.reason(error)}") from error

    def finish(self) -> None:
        """Ends the run: keeps each source once, and joins the parts if the target is one file.

        Raises:
            OutputError: it cannot be written; the parts are still there.
        """
        with self._one_sentence():
            parts = self._parts()
            if not parts:
                return
            before = [self.target] if self.is_file and self._exists(self.target) else []
            sources = {name: self._sources(name) for name in (*before, *parts)}
            last = {source: name for name, found in sources.items() for source in found}
            kept = {
                name: [source for source in found if last[source] == name]
                for name, found in sources.items()
            }
            if self.is_file:
                with self._writer(self.target) as writer:
                    for name, chosen in kept.items():
                        self._copy(name, chosen, writer)
                for name in parts:
                    self._remove(name)
                return
            for name, chosen in kept.items():
                if not chosen:
                    self._remove(name)
                elif len(chosen) < len(sources[name]):
                    with self._writer(name) as writer:
                        self._copy(name, chosen, writer)

    def _copy(self, name: str, sources: Sequence[str], writer: pq.ParquetWriter) -> None:
        """The rows of these sources of a file."""
        identities = pa.array(sources, pa.string())
        with self._opened(name) as file:
            for batch in pq.ParquetFile(file).iter_batches():
                chosen = batch.filter(pc.is_in(batch["source"], value_set=identities))
                writer.write_batch(chosen.cast(self.schema))

    def _sources(self, name: str) -> dict[str, bool]:
        """The identities of a file's sources, and whether each failed.

        Raises:
            SchemaError: it is no file of ours, or made otherwise.
        """
        with self._opened(name) as file:
            try:
                parquet = pq.ParquetFile(file)
            except pa.ArrowInvalid as error:
                raise SchemaError(f"{name}: not a Parquet file") from error
            check_schema(parquet.schema_arrow, self.schema, name)
            found: dict[str, bool] = {}
            for batch in parquet.iter_batches(columns=["source", "error"]):
                for source in batch["source"].unique().to_pylist():
                    found.setdefault(source, False)
                bad = batch.filter(pc.is_valid(batch["error"]))
                found |= dict.fromkeys(bad["source"].to_pylist(), True)
        return found

    @contextlib.contextmanager
    def _writer(self, name: str) -> Iterator[pq.ParquetWriter]:
        with contextlib.ExitStack() as stack:
            if self._files is None:
                target: Any = str(stack.enter_context(whole_file(Path(name))))
            else:  # a store shows an object when it is complete, and not before
                target = self._files.open(_key(name), "wb")
                stack.push(lambda kind, *_: _abandon(target) if kind else target.close())
            writer = stack.enter_context(open_parquet(target, self.schema))
            yield writer

    def _opened(self, name: str) -> Any:
        return open(name, "rb") if self._files is None else self._files.open(_key(name), "rb")

    def _parts(self) -> list[str]:
        found = [f"{self._folder}/{name}" for name in self._listed() if _PART.fullmatch(name)]
        return sorted(found, key=lambda name: (_run_of(name), name))

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
        else:
            probe = f"{_key(self._folder)}/{_PROBE}"
            self._files.pipe_file(probe, b"")
            self._files.rm_file(probe)

    def _remove(self, name: str) -> None:
        if self._files is None:
            os.remove(name)
        else:
            self._files.rm_file(_key(name))

    @contextlib.contextmanager
    def _one_sentence(self) -> Iterator[None]:
        """Failures of the disk or the store in one sentence."""
        try:
            yield
        except (OutputError, SchemaError):
            raise
        except Exception as error:
            if self._files is None and not isinstance(error, OSError | pa.ArrowException):
                raise
            raise OutputError(f"{self.target}: {remote.reason(error)}") from error


def _run_of(part: str) -> int:
    match = _PART.search(part)
    return int(match[1]) if match else 0


def _key(address: str) -> str:
    return address.partition("://")[2]


def _abandon(file: Any) -> None:
    """Discards a file that is half written: nothing of it appears."""
    file.discard()
    with contextlib.suppress(AttributeError):
        file.closed = True  # or closing it, once it is collected, would send the rest
