"""COCO keypoint sets as tar shards, created once for any number of processes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from sdpose_core.data.coco import CocoImage, coco_samples, load_coco
from sdpose_core.data.shards import (
    CONTEXT_SIZE,
    UNFINISHED,
    WIDE_CONTEXT_SIZE,
    ShardWriter,
    find_shards,
)
from sdpose_core.files.outputs import OutputError, only_run
from sdpose_core.files.whole_file import whole_file

QUALITY: Final = 80
"""Default WebP quality of packed crops."""
MARKER: Final = "complete.json"


def usable_cores() -> int:
    """Processor cores that this process may use."""
    count = getattr(os, "sched_getaffinity", None)
    return len(count(0)) if count is not None else os.cpu_count() or 1


def pack_coco(
    images: Sequence[CocoImage],
    folder: Path,
    *,
    source: str = "coco",
    per_shard: int = 5000,
    quality: int = QUALITY,
    size: tuple[int, int] = CONTEXT_SIZE,
    seed: int = 0,
    workers: int = 0,
    on_person: Callable[[int], None] | None = None,
) -> list[Path]:
    """Crop every person of a set and write shards; returns the shards' paths.

    Images come in an order drawn from ``seed``, so that every shard is a fair sample of the set.
    ``on_person`` gets the number written. Raises ``ValueError`` or ``OSError`` for an image that
    cannot be read.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    shuffled = [images[i] for i in order]
    with ShardWriter(folder, per_shard=per_shard) as writer:
        samples = coco_samples(shuffled, source, quality, size, workers)
        for count, sample in enumerate(samples, start=1):
            writer.write(sample)
            if on_person is not None:
                on_person(count)
    return writer.paths


def pack_new(images: Sequence[CocoImage], folder: Path, **options: Any) -> list[Path]:
    """``pack_coco`` into a folder without shards: all of them are there at its end, or none.

    While it works, and after it was killed, a file beside them marks them as incomplete; so
    ``find_shards`` rejects them, and the next call replaces them.

    Raises:
        OutputError: the folder holds shards of something else, or is being written to.
    """
    with only_run(folder, folder=True):
        unfinished = folder / UNFINISHED
        if not unfinished.exists() and any(p.suffix.lower() == ".tar" for p in folder.iterdir()):
            raise OutputError(f"{folder} holds shards: give another folder, or delete them")
        _clear(folder)
        unfinished.write_text("sdpose pack is writing here, or was ended: run it again.\n")
        try:
            paths = pack_coco(images, folder, **options)
        except BaseException:
            _clear(folder)
            raise
        finally:
            unfinished.unlink()
        return paths


def _clear(folder: Path) -> None:
    for shard in folder.glob("pose-*.tar"):
        shard.unlink()


def packed_coco(
    annotations: Path,
    images: Path,
    folder: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Shards of a COCO set in their own folder below ``folder``, with wide crops.

    Wide enough for the published augmentation.

    The first process packs, with one thread per core; others, on this or another machine sharing
    the folder, wait at a file lock, without a time limit or a process group. Later starts find the
    shards. Another set, or a changed annotation file, gets its own folder, so that no shards are
    removed while they are read.

    Args:
        say: Called with progress, one line at a time.

    Raises:
        ValueError: not a COCO set, without people, or an image that does not decode.
        OSError: a file that cannot be read or written.
    """
    about = annotations.stat()
    settings = {
        "annotations": str(annotations.resolve()),
        "bytes": about.st_size,
        "changed_ns": about.st_mtime_ns,
        "images": str(images.resolve()),
        "size": list(WIDE_CONTEXT_SIZE),
        "quality": QUALITY,
    }
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    folder = folder / name

    def waiting() -> None:
        say(f"waiting for another process to fill {folder}")

    with only_run(folder, folder=True, on_wait=waiting):
        if _described(folder) == settings:
            return find_shards([folder])
        _clear(folder)
        found = load_coco(annotations, images, None)
        total = sum(len(image.people) for image in found)
        if total == 0:
            raise ValueError(
                f"{annotations}: no person with a labelled joint and a box in the image"
            )
        say(f"packing {total} people of {annotations.name} into {folder}")

        def progress(count: int) -> None:
            if count % max(1, total // 20) == 0:
                say(f"packed {count} of {total}")

        paths = pack_coco(
            found, folder, size=WIDE_CONTEXT_SIZE, workers=usable_cores(), on_person=progress
        )
        with whole_file(folder / MARKER) as partial:
            partial.write_text(json.dumps(settings, indent=1) + "\n")
        return paths


def _described(folder: Path) -> dict[str, Any] | None:
    """The set that a folder's shards hold; None if they are incomplete."""
    try:
        content: dict[str, Any] = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return content
