"""`sdpose predict` into files of results, all formats at once, or onto the screen."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdpose_core.commands.options import RunOptions
    from sdpose_core.io.sources import Source
    from service.cli.console import Progress


@dataclass(frozen=True, slots=True)
class Drawn:
    """The drawings of a run: their folder, a file per source, and how they look."""

    folder: Path | None
    files: Sequence[Path] | None
    boxes: bool
    thickness: int | None


def predict_files(
    sources: Sequence[Source],
    files: Sequence[Path],
    options: RunOptions,
    progress: Progress,
    problems: Sequence[str],
    drawn: Drawn,
    min_keypoint_score: float,
) -> int:
    """Writes the people of the sources to all files at once, or to the screen without any.

    `problems`: inputs that stand for nothing, already reported; they count as failed.

    Returns:
        The exit status.

    Raises:
        ValueError: a file or a model cannot be used.
    """
    from sdpose_core.commands.options import made_with, model_digests
    from sdpose_core.commands.predict import Interrupted, Prediction
    from sdpose_core.commands.tally import Tally
    from sdpose_core.io.overlay import draw_poses
    from sdpose_core.io.results.formats import JSON_LINES, PARQUET, format_of, open_writer
    from sdpose_core.io.results.record import Together
    from service.cli.console import Sink, stop_on_interrupt

    formats = [format_of(file) for file in files] or [JSON_LINES]
    if PARQUET in formats:
        options = replace(options, digests=model_digests(options.pretrained))
    progress.expect(sum(not source.named_video for source in sources))
    began = time.monotonic()
    interrupted = False
    sinks: list[Sink] = []
    try:
        with ExitStack() as stack:
            sinks += [stack.enter_context(Sink(file)) for file in (files or (None,))]
            estimator = options.load()
            writer = Together(
                [
                    open_writer(
                        format,
                        sink,
                        estimator.skeleton,
                        min_keypoint_score=min_keypoint_score,
                        made_with=made_with(options) if format == PARQUET else {},
                    )
                    for format, sink in zip(formats, sinks, strict=True)
                ]
            )
            prediction = Prediction(
                partial(estimator.estimate, **options.estimate),
                writer,
                options.batch_size,
                drawn.files,
                progress,
                options.tracking,
                options.readers,
                partial(
                    draw_poses,
                    min_keypoint_score=min_keypoint_score,
                    boxes=drawn.boxes,
                    thickness=drawn.thickness,
                ),
                Tally(failures=list(problems)),
            )
            with progress, stop_on_interrupt(progress.stop):
                try:
                    prediction.run(sources)
                except Interrupted:
                    interrupted = True
                writer.finish()
            seconds = time.monotonic() - began
            if interrupted:
                kept = [draft for sink in sinks if (draft := sink.leave_unfinished())]
                progress.report(f"interrupted: {prediction.tally.sentence(seconds, kept)}")
                return 130
            for sink in sinks:
                sink.store()
            for sink in sinks:
                sink.finish()
    except BrokenPipeError:  # the reader of our output is gone: nothing left to do
        for sink in sinks:
            sink.abandon()
        return 141
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        progress.report(f"{named}the results cannot be written: {error.strerror}")
        return 1
    folder = [] if drawn.folder is None else [f"drawings in {drawn.folder}"]
    progress.report(prediction.tally.sentence(seconds, [*files, *folder]))
    return int(bool(prediction.tally.failures))
