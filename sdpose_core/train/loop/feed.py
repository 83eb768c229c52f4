"""From decoded batches to the inputs of a step on its device, without the device waiting.

Loader threads draw the views and, for a GPU, put everything into pinned memory; the copy of the
next batch overlaps the current step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from sdpose_core.data.augment import draw_views, render_views
from sdpose_core.data.batches import CropBatch, SampleStream, iterate_batches
from sdpose_core.data.shards import CropSet, context_regions
from sdpose_core.model import StudentConfig
from sdpose_core.train.recipe.config import TrainConfig
from sdpose_core.types import PUBLISHED_VIEW, ViewGeometry
from sdpose_core.vision.heatmaps import encode


@dataclass(frozen=True)
class StepInputs:
    """Images of one batch and the views drawn for them, all on one device.

    ``images`` (B, H, W, 3) uint8 RGB; ``indices`` (B,) of the samples; ``to_image`` (B, 2, 3),
    ``gain`` and ``lift`` (B,) as in ``Views``; ``joints`` (B, K, 2) in heatmap pixels;
    ``confidence`` (B, K), the weight in the loss.
    """

    images: Tensor
    indices: Tensor
    to_image: Tensor
    gain: Tensor
    lift: Tensor
    joints: Tensor
    confidence: Tensor

    def __len__(self) -> int:
        return len(self.joints)

    @classmethod
    def joined(cls, parts: Sequence[StepInputs]) -> StepInputs:
        """Those of several batches as one."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def pinned(self, device: torch.device) -> StepInputs:
        """A copy in memory that CUDA ``device`` can read directly."""
        with torch.cuda.device(device):  # or a thread would open a context on the first GPU
            return replace(self, **{k: v.pin_memory() for k, v in self.tensors().items()})

    def to(self, device: torch.device) -> StepInputs:
        """The same on ``device``; from pinned memory the copy is only queued."""
        moved = {k: v.to(device, non_blocking=True) for k, v in self.tensors().items()}
        return replace(self, **moved)


def draw_inputs(
    batch: CropBatch,
    size: tuple[int, int],
    config: TrainConfig,
    student: StudentConfig,
    step: int,
    rank: int,
) -> StepInputs:
    """The views of one batch, on the host; only ``step`` and ``rank`` decide what is drawn.

    ``size``: width and height of the images.
    """
    count = len(batch.keypoints)
    rng = np.random.default_rng((config.seed, 2, step, rank))
    weights, view = batch.keypoints[..., 2].copy(), student.view
    regions = context_regions(count, size, view)
    views = draw_views(batch.keypoints, regions, size, config.data.augment, rng, student.skeleton)
    weights[views.flipped] = weights[views.flipped][:, list(student.skeleton.mirror)]
    stride = np.array(view.input_size, np.float32) / np.array(view.heatmap_size, np.float32)
    return StepInputs(
        images=torch.from_numpy(batch.images),
        indices=torch.from_numpy(batch.indices),
        to_image=torch.from_numpy(views.to_image),
        gain=torch.from_numpy(views.gain),
        lift=torch.from_numpy(views.lift),
        joints=torch.from_numpy(views.joints / stride),
        confidence=torch.from_numpy(weights),
    )


def step_inputs(
    config: TrainConfig,
    crops: CropSet,
    stream: SampleStream,
    device: torch.device,
    *,
    samples: int,
    step: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    student: StudentConfig,
    held: Tensor | None = None,
) -> Generator[StepInputs, None, None]:
    """Endless inputs on ``device`` from position ``samples`` of the stream and step ``step`` on.

    ``student``: its sizes and skeleton; ``held``: the images of all crops (N, H, W, 3), if they are
    already on ``device``.
    """

    def make(batch: CropBatch, number: int) -> StepInputs:
        height, width = batch.images.shape[1:3] if held is None else held.shape[1:3]
        inputs = draw_inputs(batch, (width, height), config, student, step + number, rank)
        return inputs.pinned(device) if device.type == "cuda" else inputs

    def placed(inputs: StepInputs) -> StepInputs:
        inputs = inputs.to(device)
        return inputs if held is None else replace(inputs, images=held[inputs.indices])

    batches = iterate_batches(
        crops,
        stream,
        start=samples,
        batch_size=batch_size,
        make=make,
        rank=rank,
        world=world,
        workers=config.data.workers,
        decode=held is None,
    )
    with closing(batches):
        if device.type == "cuda":
            yield from _copied_ahead(batches, placed, device)
        for inputs in batches:
            yield placed(inputs)


def _copied_ahead(
    batches: Iterator[StepInputs],
    placed: Callable[[StepInputs], StepInputs],
    device: torch.device,
) -> Iterator[StepInputs]:
    """Endless batches on a GPU, each copied on a separate stream while the last step runs."""
    aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    while True:
        # By now the caller has queued its step and the GPU is busy with it.
        with torch.cuda.stream(aside):
            inputs = placed(next(batches))
        present = torch.cuda.current_stream(device)
        present.wait_stream(aside)
        for tensor in inputs.tensors().values():
            tensor.record_stream(present)  # its memory is not reused by the next copy before that
        yield inputs


def render_inputs(
    inputs: StepInputs, view: ViewGeometry = PUBLISHED_VIEW
) -> tuple[Tensor, Tensor, Tensor]:
    """Views (B, 3, *input), targets (B, K, *heatmap) and weights (B, K), on the inputs' device.

    ``view``: the student's sizes. Does not synchronise: only work on the device.
    """
    images = render_views(inputs.images, inputs.to_image, inputs.gain, inputs.lift, view)
    target, weights = encode(inputs.joints, inputs.confidence, size=view.heatmap_size)
    return images.contiguous(memory_format=torch.channels_last), target, weights
