"""From a config to a trainer that is ready to run: data is read here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdpose_core.data.packing import packed_coco
from sdpose_core.data.shards import CropSet, load_shards
from sdpose_core.model import StudentConfig
from sdpose_core.train.loop.hardware import is_first_process
from sdpose_core.train.loop.initialise import first_config
from sdpose_core.train.loop.scoring import DevelopmentSet
from sdpose_core.train.loop.state import read_state, student_of
from sdpose_core.train.loop.trainer import Trainer
from sdpose_core.train.recipe.config import DataConfig, TrainConfig


def _silent(line: str) -> None:
    del line


def load_crops(data: DataConfig, folder: Path, say: Callable[[str], None] = _silent) -> CropSet:
    """The training crops named by a config; raises ``ValueError`` when it names none.

    A COCO set becomes shards in ``data.coco_cache``, or ``crops`` in the run's ``folder``, first.
    """
    if data.shards:
        return load_shards(data.shards)
    if data.coco_annotations and data.coco_images:
        cache = Path(data.coco_cache) if data.coco_cache else folder / "crops"
        annotations, images = Path(data.coco_annotations), Path(data.coco_images)
        return load_shards(packed_coco(annotations, images, cache, say=say))
    raise ValueError("no training data: give data.shards, or data.coco_annotations and coco_images")


def load_development(data: DataConfig, student: StudentConfig) -> DevelopmentSet | None:
    """The development set named by a config, cut for a student, or None.

    Raises ``ValueError`` if only one of its two settings is given.
    """
    if bool(data.dev_annotations) != bool(data.dev_images):
        raise ValueError("a development set needs both dev_annotations and dev_images")
    if data.dev_annotations and data.dev_images:
        return DevelopmentSet.load(Path(data.dev_annotations), Path(data.dev_images), student)
    return None


def prepare(
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = _silent,
) -> Trainer:
    """Read the data of a config and build its trainer, with the folder's state if ``resume``.

    All data is read before the processes of a run connect, so that they do not wait for each other.
    """
    crops = load_crops(config.data, folder, say)
    # The first process alone scores; COCO's validation set would take a gigabyte in each.
    dev = None
    if is_first_process():
        student = student_of(read_state(folder)[1]) if resume else first_config(config)
        dev = load_development(config.data, student)
    return Trainer(config, folder, crops, dev, resume=resume)
