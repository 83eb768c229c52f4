"""Parquet: the columns of results, their rows from poses, and back.

One row is an image, a frame of a video, or a source that failed:

==========  =====================================================================================
``input``   given name of the file, or its address
``source``  which file it is, whatever it is called: a ``file://`` address from the root of the file
            system, the address without user and password, or ``sha256:`` of standard input
``frame``   number of the frame from 0; null for an image
``time_s``  seconds from the first frame; null for an image
``width``   of the image, pixels; null in a row that is an error
``height``  of the image, pixels; null in a row that is an error
``people``  of each ``id`` over time (null without tracking), ``score``, ``box`` (``x`` and ``y`` of
            its top left corner, ``width``, ``height``; pixels) and ``keypoints`` (``x``, ``y``,
            ``score``, ``visibility``, null if the student has no score head) in the order that the
            metadata names; null in a row that is an error
``error``   why there are no results of the source, or not all frames of a video; else null
==========  =====================================================================================

The file's metadata hold the schema's version, the names of the keypoints and what made them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from sdpose_core.io.people import (
    BOX_FIELDS,
    JOINT_FIELDS,
    box_values,
    ids_of,
    joint_values,
    poses_from,
)
from sdpose_core.io.results.record import Failure, Record, Results, ResultsError
from sdpose_core.io.sources import Source
from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.skeleton.files import skeleton_of_names

SCHEMA_VERSION: Final = 3
_VERSION: Final = str(SCHEMA_VERSION).encode()

_VERSION_KEY: Final = b"sdpose.schema_version"
_SETTINGS_KEY: Final = b"sdpose.settings"
_KEYPOINTS_KEY: Final = b"sdpose.keypoints"
_ROW_GROUP: Final = 1000
_POINT: Final = pa.struct([(name, pa.float32()) for name in JOINT_FIELDS])
_BOX: Final = pa.struct([(name, pa.float32()) for name in BOX_FIELDS])
_PERSON: Final = pa.struct(
    [
        ("id", pa.int32()),
        ("score", pa.float32()),
        ("box", _BOX),
        ("keypoints", pa.list_(_POINT)),
    ]
)
_COLUMNS: Final = (
    pa.field("input", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("frame", pa.int32()),
    pa.field("time_s", pa.float64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("people", pa.list_(_PERSON)),
    pa.field("error", pa.string()),
)


class SchemaError(ResultsError):
    """A Parquet file that is not of this kind, version or making; the message is one sentence."""


def results_schema(settings: Mapping[str, Any], skeleton: Skeleton = COCO17) -> pa.Schema:
    """The schema of a file whose results were made with `settings` (names and JSON values).

    Of a setting ``x`` that has an ``x_sha256`` beside it only the latter must stay the same.
    """
    return pa.schema(
        _COLUMNS,
        metadata={
            _VERSION_KEY: _VERSION,
            _KEYPOINTS_KEY: json.dumps(skeleton.keypoints).encode(),
            _SETTINGS_KEY: json.dumps(dict(settings), sort_keys=True).encode(),
        },
    )


def check_schema(found: pa.Schema, expected: pa.Schema, name: str) -> None:
    """Checks that rows of a file may be kept beside new ones.

    Raises:
        SchemaError: they were written by something else, or made otherwise.
    """
    metadata = found.metadata or {}
    version = metadata.get(_VERSION_KEY)
    if version is None:
        raise SchemaError(f"{name}: not written by sdpose predict")
    if version != expected.metadata[_VERSION_KEY]:
        raise SchemaError(
            f"{name}: has schema version {version.decode()}, this sdpose writes {SCHEMA_VERSION}; "
            "give another output"
        )
    if not found.equals(expected):
        raise SchemaError(f"{name}: its columns are not those of schema version {SCHEMA_VERSION}")
    before = json.loads(metadata[_SETTINGS_KEY])
    now = json.loads(expected.metadata[_SETTINGS_KEY])
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key) and f"{key}_sha256" not in now:
            raise SchemaError(
                f"{name}: was made with {_shown(key, before)}, not {_shown(key, now)}; "
                "give the same options, or another output"
            )


def _shown(key: str, settings: Mapping[str, Any]) -> str:
    """A setting for a message; of a model's weights their file's name and what tells them apart."""
    model, mark, _ = key.partition("_sha256")
    if not mark:
        return f"{key} {settings.get(key)}"
    return f"{model} {settings.get(model)} (SHA-256 {str(settings.get(key))[:12]})"


class ParquetRows:
    """A ``RecordWriter`` into an open Parquet file, a row group at a time.

    Attributes:
        written: rows in the file, those of failures among them.
    """

    def __init__(self, file: pq.ParquetWriter) -> None:
        self._file = file
        self._rows: list[dict[str, Any]] = []
        self.written = 0

    def write(self, record: Record) -> None:
        self._add(_row(record))

    def skip(self, source: Source, reason: str) -> None:
        values = {"input": source.name, "source": source.identity, "error": reason}
        self._add({**dict.fromkeys(field.name for field in _COLUMNS), **values})

    def finish(self) -> None:
        """Write the rows that wait; the file stays open."""
        if self._rows:
            batch = pa.RecordBatch.from_pylist(self._rows, schema=self._file.schema)
            self._file.write_batch(batch)
        self.written += len(self._rows)
        self._rows.clear()

    def keep_whole_sources(self) -> bool:
        """Forget the frames of a video in work; false if some are written, or nothing is left.

        Only frames of a video that is still in work can stand last: a frame is followed by those
        of the next source or by the end.
        """
        last = self._rows[-1] if self._rows else None
        if last is not None and last["frame"] is not None:
            while self._rows and self._rows[-1]["source"] == last["source"]:
                self._rows.pop()
        return bool(self._rows) and not self.written

    def _add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROW_GROUP:
            self.finish()


class ParquetFile(ParquetRows):
    """A ``RecordWriter`` of a whole file.

    Args:
        file: binary, takes writes until ``finish``.
        schema: from ``results_schema``.
    """

    def __init__(self, file: RawIOBase, schema: pa.Schema) -> None:
        super().__init__(open_parquet(file, schema))

    def finish(self) -> None:
        super().finish()
        self._file.close()


def open_parquet(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer into a path or an open binary file."""
    return pq.ParquetWriter(file, schema, compression="zstd")


def _row(record: Record) -> dict[str, Any]:
    poses = record.poses
    people = [
        {
            "id": one or None,
            "score": score,
            "box": dict(zip(BOX_FIELDS, box, strict=True)),
            "keypoints": [dict(zip(JOINT_FIELDS, values, strict=False)) for values in joints],
        }
        for one, score, box, joints in zip(
            ids_of(poses),
            poses.scores.tolist(),
            box_values(poses).tolist(),
            joint_values(poses).tolist(),
            strict=True,
        )
    ]
    return {
        "input": record.source,
        "source": record.identity or record.source,
        "frame": record.frame,
        "time_s": record.time_s,
        "width": record.width,
        "height": record.height,
        "people": people,
        "error": None,
    }


def read_parquet(path: Path) -> Results:
    """The results of a file, or of a folder of parts in their order.

    Raises:
        ResultsError: it is none of ours.
        OSError: it cannot be read.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ResultsError(f"{path}: no Parquet files in this folder")
    keypoints = {_opened(file)[1] for file in files}
    if len(keypoints) > 1:
        raise ResultsError(f"{path}: its files have different keypoints")
    skeleton = skeleton_of_names(keypoints.pop())
    return Results(skeleton, (one for file in files for one in _records(file, skeleton)))


def _opened(path: Path) -> tuple[pq.ParquetFile, tuple[str, ...]]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"{path}: not a Parquet file") from error
    found = file.schema_arrow
    expected = results_schema({})
    if _VERSION_KEY in (found.metadata or {}):  # settings and keypoints may be any
        expected = expected.with_metadata({**found.metadata, _VERSION_KEY: _VERSION})
    check_schema(found, expected, str(path))
    return file, tuple(json.loads(found.metadata[_KEYPOINTS_KEY]))


def _records(path: Path, skeleton: Skeleton) -> Iterator[Record | Failure]:
    file, _ = _opened(path)
    try:
        for batch in file.iter_batches(batch_size=_ROW_GROUP):
            for row in batch.to_pylist():
                if row["error"] is not None:
                    yield Source(None, row["input"], Path(), row["source"]), row["error"]
                    continue
                yield Record(
                    row["input"],
                    row["width"],
                    row["height"],
                    poses_from(row["people"], skeleton),
                    row["frame"],
                    row["time_s"],
                    row["source"],
                )
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ResultsError(f"{path}: {error}") from error
