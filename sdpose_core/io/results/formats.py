"""Which format a file of results has: its suffix decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any, Final, Protocol

from sdpose_core.files.whole_file import is_special
from sdpose_core.io.results.coco import Coco, read_results
from sdpose_core.io.results.csv_table import Csv, read_csv
from sdpose_core.io.results.json_lines import JsonLines, read_json_lines
from sdpose_core.io.results.record import RecordWriter, Results
from sdpose_core.skeleton import Skeleton

JSON_LINES: Final = ".jsonl"
PARQUET: Final = ".parquet"
SUFFIXES: Final = {
    JSON_LINES: "JSON lines",
    ".json": "one COCO file",
    ".csv": "a row per person",
    PARQUET: "a row per image",
}


class Target(Protocol):
    """Where the bytes of a file go."""

    def put(self, text: str) -> None:
        """Write whole lines."""
        ...

    @property
    def file(self) -> RawIOBase:
        """The same for bytes."""
        ...


def format_of(path: Path) -> str:
    """The suffix that decides, in small letters; JSON lines for a pipe or device without one.

    Raises:
        ValueError: it is none of ``SUFFIXES``.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return suffix
    if not suffix and is_special(path):
        return JSON_LINES
    known = ", ".join(f"{suffix} ({what})" for suffix, what in SUFFIXES.items())
    raise ValueError(f"{path}: the suffix decides the format; expected {known}")


def open_writer(
    format: str,
    target: Target,
    skeleton: Skeleton,
    *,
    min_keypoint_score: float,
    made_with: Mapping[str, Any],
) -> RecordWriter:
    """The one writer of a format.

    Args:
        format: from ``format_of``.
        target: takes what is written.
        skeleton: of all people.
        min_keypoint_score: joints below it are not labelled in a COCO file.
        made_with: settings for the metadata of Parquet, as of ``results_schema``.
    """
    if format == PARQUET:
        from sdpose_core.io.results.parquet import ParquetFile, results_schema

        return ParquetFile(target.file, results_schema(made_with, skeleton))
    if format == ".json":
        return Coco(target.put, skeleton, min_keypoint_score)
    return Csv(target.put, skeleton) if format == ".csv" else JsonLines(target.put)


def open_results(path: Path) -> Results:
    """A file of any of the formats, or a folder of Parquet parts.

    Raises:
        ResultsError: it is not of its format.
        ValueError: as of ``format_of``.
        OSError: it cannot be read.
    """
    format = PARQUET if path.is_dir() else format_of(path)
    if format == PARQUET:
        from sdpose_core.io.results.parquet import read_parquet

        return read_parquet(path)
    readers: dict[str, Callable[[Path], Results]] = {".json": read_results, ".csv": read_csv}
    return readers.get(format, read_json_lines)(path)
