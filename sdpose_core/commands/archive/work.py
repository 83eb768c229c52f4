"""The work on one part of an archive: read, estimate, write."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pyarrow.parquet as pq

from sdpose_core.checkpoints import checkpoint_digest
from sdpose_core.commands.archive.output import ArchiveOutput, Part
from sdpose_core.commands.archive.schema import batch_of, error_row, row_of
from sdpose_core.commands.predict import Estimate, Interrupted, Prediction
from sdpose_core.commands.watch import Unwatched, Watch
from sdpose_core.detector.weights import find_detector
from sdpose_core.estimator import PoseEstimator
from sdpose_core.io.sources import Source
from sdpose_core.io.writers import Record
from sdpose_core.tracking import TrackingConfig

_ROW_GROUP: Final = 1000


@dataclass(frozen=True)
class ArchiveOptions:
    """How the poses of an archive are made; plain values, which go to other machines.

    Attributes:
        pretrained: of ``PoseEstimator.from_pretrained``.
        estimate: of ``PoseEstimator.estimate``.
        track: whether people of videos get ids.
        batch_size: images or frames at once.
        readers: images read at once.
        digests: ``model_digests`` that the models must have; empty to take any.
    """

    pretrained: dict[str, Any] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)
    track: bool = False
    batch_size: int = 4
    readers: int = 4
    digests: Mapping[str, str] = field(default_factory=dict)

    def build(self) -> Estimate:
        """Loads the models; raises as ``PoseEstimator.from_pretrained`` does.

        Raises:
            ValueError: their files are not those that the run began with.
        """
        estimator = PoseEstimator.from_pretrained(**self.pretrained)
        if self.digests and (found := model_digests(self.pretrained)) != self.digests:
            name = next(key for key in found if found[key] != self.digests.get(key))
            model = name.removesuffix("_sha256")
            raise ValueError(
                f"{self.pretrained[model]}: this {model} on {socket.gethostname()} is not the one "
                "that the run began with; all machines need the same file, and it must not change"
            )
        return partial(estimator.estimate, **self.estimate)


def model_digests(pretrained: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files of a student and a detector, whatever they are called.

    Raises:
        ValueError: there is no such file.
    """
    return {
        "student_sha256": checkpoint_digest(pretrained["student"]),
        "detector_sha256": find_detector(pretrained["detector"]).digest(),
    }


@dataclass(frozen=True)
class PartResult:
    """Result of a part, or of several: they add up.

    Attributes:
        rows: written, those of failures among them.
        failures: of sources that failed: name and reason in one line each.
    """

    rows: int = 0
    failures: tuple[str, ...] = ()

    def __add__(self, other: PartResult) -> PartResult:
        return PartResult(self.rows + other.rows, self.failures + other.failures)


def parts_of(sources: Sequence[Source], run: int, size: int) -> Iterator[Part]:
    """Parts of at most `size` images in the order given; a video is its own part."""
    number = 0
    images: list[Source] = []
    for source in sources:
        if images and (source.named_video or len(images) == size):
            yield Part(run, number, tuple(images))
            images, number = [], number + 1
        if source.named_video:
            yield Part(run, number, (source,))
            number += 1
        else:
            images.append(source)
    if images:
        yield Part(run, number, tuple(images))


class _Rows:
    """A ``RecordWriter`` into a Parquet file, a row group at a time."""

    def __init__(self, file: pq.ParquetWriter, output: ArchiveOutput) -> None:
        self._file = file
        self._schema = output.schema
        self._rows: list[dict[str, Any]] = []
        self.written = 0

    def write(self, record: Record) -> None:
        self._add(row_of(record))

    def skip(self, source: Source, reason: str) -> None:
        self._add(error_row(source, reason))

    def finish(self) -> None:
        if self._rows:
            self._file.write_batch(batch_of(self._rows, self._schema))
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


def work_on(
    part: Part,
    output: ArchiveOutput,
    estimate: Estimate,
    options: ArchiveOptions,
    watch: Watch | None = None,
) -> PartResult:
    """Read the sources of a part, find their people and write the part.

    Args:
        part: what to do.
        output: where it goes.
        estimate: poses of a batch of images.
        options: batch size and similar.
        watch: follows the work, and may end it.

    Raises:
        Interrupted: ``watch`` is stopping; the sources that were done are written.
        OutputError: the part cannot be written.
    """
    interrupted: Interrupted | None = None
    with output.part(part) as file:
        rows = _Rows(file, output)
        prediction = Prediction(
            estimate,
            rows,
            options.batch_size,
            None,
            watch or Unwatched(),
            TrackingConfig() if options.track else None,
            options.readers,
        )
        try:
            prediction.run(part.sources)
        except Interrupted as stop:
            if not rows.keep_whole_sources():
                raise
            interrupted = stop
        rows.finish()
    if interrupted is not None:
        raise interrupted
    return PartResult(rows.written, tuple(prediction.failures))


def give_up(part: Part, output: ArchiveOutput, reason: str) -> PartResult:
    """Write a part in which every source failed, for this reason."""
    with output.part(part) as file:
        rows = _Rows(file, output)
        for source in part.sources:
            rows.skip(source, reason)
        rows.finish()
    return PartResult(rows.written, tuple(f"{source.name}: {reason}" for source in part.sources))
