"""From labels to a recipe: which images are held out, where it runs, for how long."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import torch

from sdpose_core.model import Student
from sdpose_core.train.loop.hardware import device_kind
from sdpose_core.train.recipe.config import (
    DataConfig,
    LossConfig,
    OptimiserConfig,
    StageConfig,
    TrainConfig,
)
from sdpose_core.train.recipe.presets import MILD_VIEWS
from sdpose_core.train.tuning.labels import Labels
from sdpose_core.train.tuning.survey import Survey

HELD_OUT: Final = (0.2, 300)
"""Share of the people who are held out, and how many at most: each score costs their time."""
PASSES: Final = 60
"""How often each person is shown, if that takes less than ``MINUTES``."""
MINUTES: Final = 20.0
PEOPLE_A_MINUTE: Final = 1500
"""Speed of training on two cores, for the length of a run."""
KEPT_MEMORY: Final = (0.25, 4 * 2**30)
"""Share of the free memory for kept views, and bytes at most."""
VIEWS: Final = 8
"""Kept views of each person."""
RATE: Final = 3e-4
WHOLE_RATE: Final = 1e-4
"""Learning rates of the last stage alone, and of all layers: the early ones tolerate less."""
START_SHARE: Final = (0.45, 0.3)
"""How far the students that are kept lie on the way back to the start, without and with new
keypoints: those are learned on the features of the trained weights."""


def hold_out(labels: Labels, found: Survey, seed: int = 0) -> tuple[set[int], set[int]]:
    """Ids of the images to train on and of those held out, never both, drawn from ``seed``.

    Raises:
        ValueError: fewer than two images with people.
    """
    named = {one for one in found.images if one in labels.held_out}
    if named and len(named) < len(found.images):
        return set(found.images) - named, named
    if len(found.images) < 2:
        raise ValueError(
            f"{labels.file.path}: people in {len(found.images)} images: at least 2 are needed, one "
            "to train on and one to score on"
        )
    share, most = HELD_OUT
    people = min(share * found.total, most)
    held: set[int] = set()
    for number in np.random.default_rng(seed).permutation(len(found.images))[:-1]:
        if sum(found.people[one] for one in held) >= max(1, people):
            break
        held.add(found.images[number])
    return set(found.images) - held, held


def recipe(
    student: Student,
    people: int,
    *,
    folder: Path,
    images: Path,
    minutes: float | None = None,
    every_layer: bool | None = None,
    new: Sequence[str] = (),
) -> TrainConfig:
    """How a student is trained on ``people`` from ``folder``'s files.

    ``every_layer``: train all of it; None: if there is a GPU. ``new``: keypoints that the start
    does not know.
    """
    gpu = device_kind("auto") != "cpu"
    whole = gpu if every_layer is None else every_layer
    batch = max(4, min(256 if gpu else 32, people // 4))
    short = PASSES * people <= MINUTES * PEOPLE_A_MINUTE
    stage = StageConfig(
        batch=batch,
        epochs=float(PASSES) if minutes is None and short else None,
        minutes=minutes or (None if short else MINUTES),
        rate=WHOLE_RATE if whole else RATE,
        warmup_steps=20,
        hold=0.25,
    )
    length = minutes or min(MINUTES, PASSES * people / PEOPLE_A_MINUTE)
    return TrainConfig(
        name=folder.name,
        student=student.config.name,
        start=str(folder / "start.safetensors"),
        data=DataConfig(
            coco_annotations=str(folder / "train.json"),
            coco_images=str(images),
            dev_annotations=str(folder / "held-out.json"),
            dev_images=str(images),
            workers=min(8, os.cpu_count() or 1) if gpu else 1,
            kept_views=0 if whole else _views(people, student),
            augment=MILD_VIEWS,
        ),
        loss=LossConfig(tokens=0.0),
        optimiser=OptimiserConfig(
            name="adamw",
            betas=(0.9, 0.98),
            weight_decay=0.02,
            clip=0.01,
            ema=0.998,
            head_rate=10,
            start_share=START_SHARE[bool(new)],
            new_keypoints=tuple(new),
        ),
        stages=(stage,),
        devices=1,
        evaluate_minutes=max(0.5, length / 10),
        checkpoint_minutes=1.0,
    )


def _views(people: int, student: Student) -> int:
    """How many views are kept: some of each person, as far as memory goes."""
    share, most = KEPT_MEMORY
    room = min(share * psutil.virtual_memory().available, most)
    size = student.config.input_size
    with torch.no_grad():
        values = sum(each.numel() for each in student.eval().early(torch.zeros(1, 3, *size)))
    return max(1, min(VIEWS * people, int(room / (2 * values))))
