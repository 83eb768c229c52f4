"""From labels to the folder of a run that is ready to train."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sdpose_core.checkpoints import load_student, save_student
from sdpose_core.files.whole_file import whole_file
from sdpose_core.skeleton import Skeleton
from sdpose_core.train.loop.hardware import device_kind
from sdpose_core.train.recipe.config import TrainConfig
from sdpose_core.train.transfer import with_skeleton
from sdpose_core.train.tuning.labels import read_labels, write_coco
from sdpose_core.train.tuning.plan import hold_out, recipe
from sdpose_core.train.tuning.survey import survey

SURVEY: Final = "labels.txt"
"""Name of the file that lists what labels hold; only runs on a user's labels have it."""


def own_files(folder: Path) -> list[Path]:
    """Files that a run on labels writes into its folder beside ``state.run_files``."""
    names = (SURVEY, "train.json", "held-out.json", "start.safetensors", "report.md", "worst.jpg")
    return [folder / name for name in names]


def begin(
    given: Path,
    images: Path | None,
    folder: Path,
    *,
    start: str,
    skeleton: Skeleton | None = None,
    minutes: float | None = None,
    every_layer: bool | None = None,
    say: Callable[[str], None],
) -> TrainConfig:
    """Read labels, hold out a part of the images, and make the start of a run in ``folder``.

    Writes ``labels.txt``, ``train.json``, ``held-out.json`` and ``start.safetensors``, once all has
    been read and found good.

    Args:
        given: A COCO file, or YOLO's ``data.yaml`` (``labels.read_labels``).
        images: Of a COCO file.
        start: Student to begin with; keypoints of the same name carry over.
        skeleton: Of the labels; None: as they name it.
        minutes: Computing time; None: by the number of people.
        every_layer: Train the whole student; None: if there is a GPU.

    Raises:
        ValueError: labels or a start that cannot be used.
    """
    labels = read_labels(given, images, skeleton)
    found = survey(labels)
    for line in found.lines():
        say(f"{given}: {line}")
    if not found.total:
        raise ValueError(f"{given}: no person with a labelled keypoint and a box in the image")
    trained, held = hold_out(labels, found)
    student = load_student(start)
    made, carried = with_skeleton(student, _common(labels.file.skeleton, student.config.skeleton))
    new = [name for name in made.config.skeleton.keypoints if name not in carried]
    count = sum(found.people[one] for one in held)
    say(f"held out: {count} people of {len(held)} images")
    known = "all keypoints" if not new else f"{len(carried)} keypoints carry over; new"
    say(f"starts from {start}: {known}{': ' + ', '.join(new) if new else ' are known to it'}")
    folder.mkdir(parents=True, exist_ok=True)
    write_coco(labels.file, folder / "train.json", trained)
    write_coco(labels.file, folder / "held-out.json", held)
    save_student(made, folder / "start.safetensors", {"start": Path(start).name})
    config = recipe(
        made,
        found.total - count,
        folder=folder,
        images=labels.folder,
        minutes=minutes,
        every_layer=every_layer,
        new=new,
    )
    say(_where(config))
    with whole_file(folder / SURVEY) as partial:
        partial.write_text("\n".join(found.lines(shown=None)) + "\n", encoding="utf-8")
    return config


def _common(own: Skeleton, start: Skeleton) -> Skeleton:
    """The start's skeleton if the labels have the same keypoints in any order, else their own."""
    same = len(own) == len(start) and None not in start.places(own.keypoints)
    return start if same else own


def _where(config: TrainConfig) -> str:
    [stage] = config.stages
    kind = device_kind("auto")
    place = "the GPU" if kind != "cpu" else f"the CPU ({os.cpu_count()} cores)"
    what = "the last stage and the heads" if config.data.kept_views else "all layers"
    length = f"{stage.minutes:g} minutes" if stage.minutes else f"{stage.epochs:g} passes"
    return f"trains {what} on {place}, {stage.batch} people a step, {length}"
