"""Poses of many images and videos, one after the other: what ``sdpose predict`` does."""

from __future__ import annotations

import contextlib
import itertools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sdpose_core.commands.tally import Tally
from sdpose_core.commands.watch import Watch
from sdpose_core.files.outputs import OutputError, check_outputs
from sdpose_core.files.whole_file import remove_partials
from sdpose_core.io.overlay import draw_poses, save_picture
from sdpose_core.io.problems import BrokenVideo, MediaError
from sdpose_core.io.reading import read_ahead
from sdpose_core.io.results.record import Record, RecordWriter
from sdpose_core.io.sources import Source, paths_of
from sdpose_core.io.video import VideoFrame, VideoReader, VideoWriter
from sdpose_core.tracking import PeopleTracker, TrackingConfig
from sdpose_core.types import Image, Poses


class Estimate(Protocol):
    """``PoseEstimator.estimate`` with its options chosen."""

    def __call__(self, images: Sequence[Image]) -> list[Poses]: ...


class Interrupted(Exception):
    """The user stopped the command; what was written so far is whole."""


@dataclass(slots=True)
class Prediction:
    """A run over sources.

    Attributes:
        estimate: poses of a batch of images.
        writer: takes the results.
        batch_size: images or frames handed over at once.
        drawings: of each source the file for it with skeletons (``drawings_in``), None for none.
        watch: follows the run, and may end it.
        tracking: how people of a video get ids and steady joints; None for neither.
        readers: images read at once, ahead of the models.
        draw: makes the drawing of an image; ``draw_poses`` with its options chosen.
        tally: what was done so far.
    """

    estimate: Estimate
    writer: RecordWriter
    batch_size: int
    drawings: Sequence[Path] | None
    watch: Watch
    tracking: TrackingConfig | None = None
    readers: int = 2
    draw: Callable[[Image, Poses], Image] = draw_poses
    tally: Tally = field(default_factory=Tally)
    _tracker: PeopleTracker | None = None

    def run(self, sources: Sequence[Source]) -> None:
        """Work through the sources in order.

        Raises:
            Interrupted: ``watch`` is stopping.
            OutputError: as ``check_drawings``; nothing was written.
        """
        targets: Iterator[Path | None] = itertools.repeat(None)
        if self.drawings is not None:
            check_drawings(self.drawings, sources)
            remove_partials(self.drawings)
            targets = iter(self.drawings)
        waiting: list[tuple[Source, Path | None, Image]] = []
        with contextlib.closing(read_ahead(sources, self.batch_size, self.readers)) as contents:
            for source, content in contents:
                target = next(targets)
                self._check()
                if content is None:
                    self._pictures(waiting)
                    self._video(source, target)
                elif isinstance(content, MediaError):
                    self._skip(source, content)
                    self.watch.advance(1)
                else:
                    waiting.append((source, target, content))
                if len(waiting) == self.batch_size:
                    self._pictures(waiting)
        self._pictures(waiting)

    def _check(self) -> None:
        if self.watch.stopping:
            raise Interrupted

    def _skip(self, source: Source, error: Exception) -> None:
        """Nothing, or not all, of a source becomes results."""
        self.writer.skip(source, str(error))
        self._tell(source, error)

    def _tell(self, source: Source, error: Exception) -> None:
        line = f"{source.name}: {error}"
        self.tally.failures.append(line)
        self.watch.report(line)

    def _pictures(self, waiting: list[tuple[Source, Path | None, Image]]) -> None:
        """Work on the images read so far, and empty the list."""
        if not waiting:
            return
        self._check()
        found = self.estimate([image for _, _, image in waiting])
        for (source, target, image), poses in zip(waiting, found, strict=True):
            if not self._write(source, image, poses) or target is None:
                continue
            try:
                save_picture(target, self.draw(image, poses))
            except (MediaError, OSError) as error:
                self._tell(source, error)
        self.watch.advance(len(waiting))
        waiting.clear()

    def _write(
        self, source: Source, image: Image, poses: Poses, frame: VideoFrame | None = None
    ) -> bool:
        """Write one result; false, and reported, where it holds numbers that are none."""
        height, width = image.shape[:2]
        number, time_s = (None, None) if frame is None else (frame.number, frame.time_s)
        try:
            record = Record(source.name, width, height, poses, number, time_s, source.identity)
        except ValueError as error:
            self._skip(source, error)
            return False
        self.writer.write(record)
        self.tally.add(number, len(poses))
        return True

    def _video(self, source: Source, target: Path | None) -> None:
        self._tracker = None if self.tracking is None else PeopleTracker(self.tracking)
        try:
            with source.opened() as file, VideoReader(file) as reader:
                self.watch.expect(reader.frames or 0)
                begin = None
                if target is not None:
                    begin = partial(VideoWriter, target, reader.rate, sound=reader.sound)
                with _VideoDrawing(begin, partial(self._tell, source), self.draw) as drawing:
                    if begin is not None:
                        reader.on_sound = drawing.add_sound
                    self._all_frames(source, reader, drawing)
        except MediaError as error:
            if source.named_video:
                self._skip(source, error)
            else:
                self._skip(source, MediaError(f"neither an image nor a video ({error})"))

    def _all_frames(self, source: Source, reader: VideoReader, drawing: _VideoDrawing) -> None:
        batch: list[VideoFrame] = []
        try:
            for frame in reader:
                batch.append(frame)
                if len(batch) == self.batch_size:
                    self._frames(source, batch, drawing)
                    batch = []
        except BrokenVideo as error:  # what came before the damage counts
            self._skip(source, error)
        self._frames(source, batch, drawing)

    def _frames(self, source: Source, batch: list[VideoFrame], drawing: _VideoDrawing) -> None:
        self._check()
        if not batch:
            return
        found = self.estimate([frame.image for frame in batch])
        for frame, poses in zip(batch, found, strict=True):
            if self._tracker is not None and poses.finite:
                poses = self._tracker.update(poses, frame.time_s)
            written = self._write(source, frame.image, poses, frame)
            drawing.add(frame, poses if written else Poses.empty())
        self.watch.advance(len(batch))


class _VideoDrawing:
    """The drawing of one video. If it fails, that is reported once and the results go on.

    Args:
        begin: gives the file to draw into; None draws nothing.
        tell: called with the failure.
        draw: makes the drawing of a frame.
    """

    def __init__(
        self,
        begin: Callable[[], VideoWriter] | None,
        tell: Callable[[Exception], None],
        draw: Callable[[Image, Poses], Image],
    ) -> None:
        self._begin, self._tell, self._draw = begin, tell, draw
        self._file: VideoWriter | None = None

    def __enter__(self) -> _VideoDrawing:
        if self._begin is not None:
            try:
                self._file = self._begin().__enter__()
            except (MediaError, OSError) as error:
                self._tell(error)
        return self

    def add(self, frame: VideoFrame, poses: Poses) -> None:
        """One more frame, to be shown when and as long as the frame was."""
        if self._file is None:
            return
        try:
            drawing = self._draw(frame.image, poses)
            self._file.write(drawing, frame.time_s, frame.duration_s)
        except MediaError as error:
            self._end(type(error), error, error.__traceback__)
            self._tell(error)

    def add_sound(self, packet: Any, time_s: float) -> None:
        """Sound of the video, as ``VideoReader.on_sound`` gives it."""
        if self._file is None:
            return
        try:
            self._file.add_sound(packet, time_s)
        except MediaError as error:  # once: no more of it is taken
            self._tell(error)

    def __exit__(self, *failure: Any) -> None:
        try:
            self._end(*failure)
        except MediaError as unfinished:
            self._tell(unfinished)

    def _end(self, *failure: Any) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.__exit__(*failure)


def drawings_in(folder: Path, sources: Sequence[Source]) -> list[Path]:
    """A separate file for the drawing of each source, on file systems without case as well."""
    used: set[str] = set()
    drawings = []
    for source in sources:
        place = source.place
        if source.is_video:
            place = place.with_suffix(".mp4")
        elif place.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            place = place.with_suffix(".jpg")
        number = 2
        while (key := unicodedata.normalize("NFC", str(place)).casefold()) in used:
            place = place.with_stem(f"{source.place.stem}-{number}")
            number += 1
        used.add(key)
        drawings.append(folder / place)
    return drawings


def check_drawings(drawings: Sequence[Path], sources: Sequence[Source]) -> None:
    """Look, before anything is written, whether drawings would replace originals.

    Raises:
        OutputError: one would take the place of a source, or of another file beside one.
    """
    paths = paths_of(sources)
    check_outputs(drawings, paths)
    folders = {folder.resolve() for folder in {path.parent for path in paths}}
    for drawing in drawings:
        if drawing.exists() and drawing.parent.resolve() in folders:
            raise OutputError(
                f"{drawing}: is beside the inputs and may be an original; draw into another folder"
            )
