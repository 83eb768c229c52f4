"""The crops of a run: their order, and where their images are held."""

from __future__ import annotations

from collections.abc import Generator

from lightning_fabric import Fabric
from torch import Tensor

from sdpose_core.data.batches import SampleStream, sample_weights
from sdpose_core.data.held import hold
from sdpose_core.data.shards import CropSet
from sdpose_core.model import Student
from sdpose_core.train.loop.feed import StepInputs, render_inputs, step_inputs
from sdpose_core.train.recipe.config import StageConfig, TrainConfig


class Samples:
    """The training samples of a run, for ``student``.

    Raises:
        ValueError: invalid weights, other keypoints than the student's, or crops that do not fit
            into the device's memory.
    """

    def __init__(
        self, config: TrainConfig, crops: CropSet, fabric: Fabric, student: Student
    ) -> None:
        self.crops = crops = crops.ordered(student.config.skeleton)
        self.config, self.fabric, self.student = config, fabric, student
        data = config.data
        self.stream = SampleStream(sample_weights(crops, data.source_weights), config.seed)
        self._held = hold(crops, fabric.device, data.workers) if data.on_device else None

    def inputs(
        self, stage: StageConfig, samples: int, step: int
    ) -> Generator[StepInputs, None, None]:
        """The inputs of the next steps of a stage, from a position of the stream and a step on."""
        return step_inputs(
            self.config,
            self.crops,
            self.stream,
            self.fabric.device,
            samples=samples,
            step=step,
            batch_size=stage.batch,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            student=self.student.config,
            held=self._held,
        )

    def render(self, inputs: StepInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Views, targets and weights of one batch."""
        return render_inputs(inputs, self.student.config.view)
