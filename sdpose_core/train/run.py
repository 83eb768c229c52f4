"""From a config to a trainer that is ready to run: data is read here."""

from __future__ import annotations

from pathlib import Path

from sdpose_core.data.coco import coco_samples, load_coco
from sdpose_core.data.shards import WIDE_CONTEXT_SIZE, CropSet, load_shards
from sdpose_core.train.config import DataConfig, TrainConfig
from sdpose_core.train.scoring import DevelopmentSet
from sdpose_core.train.trainer import Trainer


def load_crops(data: DataConfig) -> CropSet:
    """The training crops that a config names; raises ``ValueError`` when it names none."""
    if data.shards:
        return load_shards(data.shards)
    if data.coco_annotations and data.coco_images:
        images = load_coco(Path(data.coco_annotations), Path(data.coco_images))
        return CropSet.from_samples(coco_samples(images, "coco", size=WIDE_CONTEXT_SIZE))
    raise ValueError("no training data: give data.shards, or data.coco_annotations and coco_images")


def load_development(data: DataConfig) -> DevelopmentSet | None:
    """The development set that a config names, or None."""
    if data.dev_annotations and data.dev_images:
        return DevelopmentSet.load(Path(data.dev_annotations), Path(data.dev_images))
    return None


def prepare(config: TrainConfig, folder: Path) -> Trainer:
    """Read the data of a config and build its trainer."""
    return Trainer(config, folder, load_crops(config.data), load_development(config.data))
