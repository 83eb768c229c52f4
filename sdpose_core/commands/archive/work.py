"""The work on one part of an archive: read, estimate, write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdpose_core.commands.archive.output import ArchiveOutput, Part
from sdpose_core.commands.options import RunOptions
from sdpose_core.commands.predict import Estimate, Interrupted, Prediction
from sdpose_core.commands.tally import Tally
from sdpose_core.commands.watch import Unwatched, Watch
from sdpose_core.io.results.parquet import ParquetRows
from sdpose_core.io.sources import Source


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


def work_on(
    part: Part,
    output: ArchiveOutput,
    estimate: Estimate,
    options: RunOptions,
    watch: Watch | None = None,
) -> Tally:
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
        rows = ParquetRows(file)
        prediction = Prediction(
            estimate,
            rows,
            options.batch_size,
            None,
            watch or Unwatched(),
            options.tracking,
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
    return prediction.tally


def give_up(part: Part, output: ArchiveOutput, reason: str) -> Tally:
    """Write a part in which every source failed, for this reason."""
    with output.part(part) as file:
        rows = ParquetRows(file)
        for source in part.sources:
            rows.skip(source, reason)
        rows.finish()
    return Tally(failures=[f"{source.name}: {reason}" for source in part.sources])
