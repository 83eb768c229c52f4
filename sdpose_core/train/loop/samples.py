"""The crops of a run: their order, and where their images are held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice

from lightning_fabric import Fabric
from torch import Tensor

from sdpose_core.data.batches import SampleStream, sample_weights
from sdpose_core.data.held import hold
from sdpose_core.data.shards import CropSet
from sdpose_core.model import Student
from sdpose_core.train.loop.beginning import stage_size
from sdpose_core.train.loop.feed import StepInputs, render_inputs, step_inputs
from sdpose_core.train.optim.batch_norm import insert_batch_norm
from sdpose_core.train.recipe.config import StageConfig, TrainConfig
from sdpose_core.types import ViewGeometry

MEASURED_BATCHES = 8
"""Batches of a stage on which the statistics of inserted batch norm are measured."""


class Samples:
    """The training samples of a run; ``view`` are its student's sizes.

    Raises:
        ValueError: invalid weights, or crops that do not fit into the device's memory.
    """

    def __init__(
        self, config: TrainConfig, crops: CropSet, fabric: Fabric, view: ViewGeometry
    ) -> None:
        self.crops = crops
        self._config, self._fabric, self._view = config, fabric, view
        data = config.data
        weights = sample_weights(crops, data.source_weights, data.human_factor)
        self.stream = SampleStream(weights, config.seed)
        self._held = hold(crops, fabric.device, data.workers) if data.on_device else None

    def inputs(
        self, stage: StageConfig, samples: int, step: int, *, shared: bool = False
    ) -> Iterator[StepInputs]:
        """The inputs of the next steps of a stage, from a position of the stream and a step on.

        ``shared``: all processes get those that the first one would get alone.
        """
        return step_inputs(
            self._config,
            self.crops,
            self.stream,
            self._fabric.device,
            samples=samples,
            step=step,
            batch_size=stage.batch,
            rank=0 if shared else self._fabric.global_rank,
            world=1 if shared else self._fabric.world_size,
            view=self._view,
            held=self._held,
        )

    def normalise(self, student: Student, stage: StageConfig, *, measure: bool) -> None:
        """Insert batch norm into a student's backbone, on the run's device.

        ``measure``: its statistics, on the first batches of a stage; else they will be loaded.
        Raises ``ValueError`` if the backbone already has batch norm.
        """
        student.to(self._fabric.device).eval()
        if not measure:
            insert_batch_norm(student.backbone)
            return
        size = stage_size(stage, student.config)
        inputs = self.inputs(stage, 0, 0, shared=True)

        def pixels() -> Iterator[Tensor]:
            for part in islice(inputs, MEASURED_BATCHES):
                images = render_inputs(part, size, "mse", self._view)[0]
                yield (images - student.pixel_mean) / student.pixel_std

        with closing(inputs):  # type: ignore[type-var]
            insert_batch_norm(student.backbone, pixels())
