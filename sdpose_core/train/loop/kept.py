"""Training of a student's last stage alone: what it takes is computed once and held in memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.ahead import ahead
from sdpose_core.data.batches import AHEAD, SampleStream, load_batch
from sdpose_core.data.shards import CropSet
from sdpose_core.model import Student
from sdpose_core.train.loop.feed import StepInputs, draw_inputs, render_inputs
from sdpose_core.train.loop.samples import Samples
from sdpose_core.train.recipe.config import StageConfig, TrainConfig
from sdpose_core.vision.heatmaps import encode


@dataclass(frozen=True)
class KeptInputs:
    """The views of one batch: ``rows`` (B,) where they are held, and of those ``missing`` (M,) that
    must be computed first, ``drawn`` for it."""

    rows: NDArray[np.int64]
    missing: NDArray[np.int64]
    drawn: StepInputs | None

    def __len__(self) -> int:
        return len(self.rows)


class KeptSamples(Samples):
    """Samples of a run that sees ``data.kept_views`` views again and again.

    View r is the sample at position r of the stream, drawn from the seed and r alone; each pass
    shows all of them in another order. ``Student.early`` computes one when its turn first comes, so
    that training begins at once, and again after resuming. Held as float16, 461 kB each for
    ``sdpose-lite``.

    Raises:
        ValueError: as ``Samples``; or several processes.
    """

    def __init__(
        self, config: TrainConfig, crops: CropSet, fabric: Fabric, student: Student
    ) -> None:
        super().__init__(config, crops, fabric, student)
        if fabric.world_size > 1:
            raise ValueError("data.kept_views: views are held by one process; set devices to 1")
        views = config.data.kept_views
        self._order = SampleStream(np.ones(views), config.seed)
        self._there = np.zeros(views, bool)
        self._maps: list[Tensor] = []
        self._joints = torch.zeros(views, len(student.config.skeleton), 2)
        self._confidence = torch.zeros(self._joints.shape[:2])

    def inputs(  # type: ignore[override]
        self, stage: StageConfig, samples: int, step: int
    ) -> Generator[KeptInputs, None, None]:
        """The views of the next batches from a position of the run on."""
        del step
        batches = ahead(
            lambda number: self._drawn(samples + number * stage.batch, stage.batch),
            count(),
            workers=self.config.data.workers,
            limit=AHEAD + 1,
            name="decode",
        )
        with closing(batches):
            yield from batches

    def _drawn(self, start: int, batch: int) -> KeptInputs:
        rows = self._order.take(start, batch)
        missing = np.unique(rows[~self._there[rows]])
        parts = []
        for row in missing:
            one = load_batch(self.crops, self.stream.take(int(row), 1))
            height, width = one.images.shape[1:3]
            size = (width, height)
            parts.append(draw_inputs(one, size, self.config, self.student.config, int(row), 0))
        return KeptInputs(rows, missing, StepInputs.joined(parts) if parts else None)

    def render(self, inputs: KeptInputs) -> tuple[list[Tensor], Tensor, Tensor]:  # type: ignore[override]
        """Maps for ``Student.late``, targets and weights of one batch."""
        if inputs.drawn is not None:
            self._compute(inputs.missing, inputs.drawn)
        rows = torch.from_numpy(inputs.rows)
        device = self.fabric.device
        maps = [each[rows].to(device).float().permute(0, 3, 1, 2) for each in self._maps]
        size = self.student.config.view.heatmap_size
        joints, confidence = self._joints[rows].to(device), self._confidence[rows].to(device)
        return maps, *encode(joints, confidence, size=size)

    @torch.no_grad()
    def _compute(self, rows: NDArray[np.int64], drawn: StepInputs) -> None:
        images, _, _ = render_inputs(drawn.to(self.fabric.device), self.student.config.view)
        was_training = self.student.training
        with self.fabric.autocast():
            maps = self.student.eval().early(images)
        self.student.train(was_training)
        if not self._maps:
            views = len(self._there)
            shapes = [each.permute(0, 2, 3, 1).shape[1:] for each in maps]
            self._maps = [torch.empty(views, *shape, dtype=torch.float16) for shape in shapes]
        for kept, made in zip(self._maps, maps, strict=True):
            kept[rows] = made.permute(0, 2, 3, 1).to("cpu", torch.float16)
        self._joints[rows], self._confidence[rows] = drawn.joints, drawn.confidence
        self._there[rows] = True
