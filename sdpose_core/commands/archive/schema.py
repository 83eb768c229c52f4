"""The columns of an archive's results, and its rows from poses.

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
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from sdpose_core.io.sources import Source
from sdpose_core.io.writers import Record
from sdpose_core.skeleton import COCO17, Skeleton

SCHEMA_VERSION: Final = 3

_VERSION_KEY: Final = b"sdpose.schema_version"
_SETTINGS_KEY: Final = b"sdpose.settings"
_POINT: Final = pa.struct([(name, pa.float32()) for name in ("x", "y", "score", "visibility")])
_BOX: Final = pa.struct([(name, pa.float32()) for name in ("x", "y", "width", "height")])
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


class SchemaError(ValueError):
    """A Parquet file that is not of this kind, version or making; the message is one sentence."""


def archive_schema(settings: Mapping[str, Any], skeleton: Skeleton = COCO17) -> pa.Schema:
    """The schema of a file whose results were made with `settings` (names and JSON values).

    Of a setting ``x`` that has an ``x_sha256`` beside it only the latter must stay the same.
    """
    return pa.schema(
        _COLUMNS,
        metadata={
            _VERSION_KEY: str(SCHEMA_VERSION).encode(),
            b"sdpose.keypoints": json.dumps(skeleton.keypoints).encode(),
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


def row_of(record: Record) -> dict[str, Any]:
    """A row for an image or a frame."""
    poses = record.poses
    ids = [None] * len(poses) if poses.ids is None else poses.ids.tolist()
    none = [[None] * len(poses.skeleton)] * len(poses)
    people = [
        {
            "id": one or None,
            "score": score,
            "box": {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
            "keypoints": [
                {"x": x, "y": y, "score": point_score, "visibility": visible}
                for (x, y), point_score, visible in zip(
                    points, point_scores, visibility, strict=True
                )
            ],
        }
        for one, score, (x1, y1, x2, y2), points, point_scores, visibility in zip(
            ids,
            poses.scores.tolist(),
            poses.boxes.tolist(),
            poses.keypoints.tolist(),
            poses.keypoint_scores.tolist(),
            none if poses.visibility is None else poses.visibility.tolist(),
            strict=True,
        )
    ]
    return {
        "input": record.source,
        "source": record.identity,
        "frame": record.frame,
        "time_s": record.time_s,
        "width": record.width,
        "height": record.height,
        "people": people,
        "error": None,
    }


def error_row(source: Source, reason: str) -> dict[str, Any]:
    """A row for a source of which there are no results, or not all."""
    values = {"input": source.name, "source": source.identity, "error": reason}
    return {**dict.fromkeys(field.name for field in _COLUMNS), **values}


def batch_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as Arrow has them."""
    return pa.RecordBatch.from_pylist(list(rows), schema=schema)
