"""From decoded batches to what a step needs, on its device, without the device waiting.

Loader threads draw the views and, for a GPU, put everything into pinned memory; the copy of the
next batch runs beside the present step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from sdpose_core.data.augment import draw_views, render_views
from sdpose_core.data.batches import CropBatch, SampleStream, iterate_batches
from sdpose_core.data.shards import VIEW_SIZE, CropSet
from sdpose_core.heatmaps import encode
from sdpose_core.train.config import TrainConfig
from sdpose_core.train.scoring import resize_views
from sdpose_core.types import Regions


@dataclass(frozen=True)
class StepInputs:
    """Pictures of one batch and the views drawn for them, all on one device.

    ``images`` (B, H, W, 3) uint8 RGB; ``to_image`` (B, 2, 3), ``gain`` and ``lift`` (B,) as
    ``Views`` has them; ``joints`` (B, 17, 2) in heatmap pixels; ``confidence`` (B, 17).
    """

    images: Tensor
    to_image: Tensor
    gain: Tensor
    lift: Tensor
    joints: Tensor
    confidence: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def pinned(self, device: torch.device) -> StepInputs:
        """A copy in memory that CUDA ``device`` can read by itself."""
        with torch.cuda.device(device):  # or a thread would open a context on the first GPU
            return replace(self, **{k: v.pin_memory() for k, v in self.tensors().items()})

    def to(self, device: torch.device) -> StepInputs:
        """The same on ``device``; from pinned memory the copy is only queued."""
        moved = {k: v.to(device, non_blocking=True) for k, v in self.tensors().items()}
        return replace(self, **moved)


def draw_inputs(batch: CropBatch, config: TrainConfig, step: int, rank: int) -> StepInputs:
    """The views of one batch, on the host; ``step`` and ``rank`` alone decide what is drawn."""
    count, height, width = batch.images.shape[:3]
    regions = Regions(
        np.tile(np.array((width / 2, height / 2), np.float32), (count, 1)),
        np.tile(np.array(VIEW_SIZE, np.float32), (count, 1)),
    )
    rng = np.random.default_rng((config.seed, 2, step, rank))
    data = config.data
    views = draw_views(batch.keypoints, regions, (width, height), data.augment, rng)
    confidence = np.where(views.confidence >= data.minimum_confidence, views.confidence, 0)
    return StepInputs(
        images=torch.from_numpy(batch.images),
        to_image=torch.from_numpy(views.to_image),
        gain=torch.from_numpy(views.gain),
        lift=torch.from_numpy(views.lift),
        joints=torch.from_numpy(views.joints / 4),
        confidence=torch.from_numpy(confidence),
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
) -> Iterator[StepInputs]:
    """Endless inputs on ``device`` from position ``samples`` of the stream and step ``step`` on."""

    def make(batch: CropBatch, number: int) -> StepInputs:
        inputs = draw_inputs(batch, config, step + number, rank)
        return inputs.pinned(device) if device.type == "cuda" else inputs

    batches = iterate_batches(
        crops,
        stream,
        start=samples,
        batch_size=batch_size,
        make=make,
        rank=rank,
        world=world,
        workers=config.data.workers,
    )
    with closing(batches):  # type: ignore[type-var]
        if device.type == "cuda":
            yield from _copied_ahead(batches, device)
        for inputs in batches:
            yield inputs.to(device)


def _copied_ahead(batches: Iterator[StepInputs], device: torch.device) -> Iterator[StepInputs]:
    """Endless batches on a GPU, each copied on a stream of its own while the last step runs."""
    aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    while True:
        # By now the caller has queued its step and the GPU is busy with it.
        with torch.cuda.stream(aside):
            inputs = next(batches).to(device)
        present = torch.cuda.current_stream(device)
        present.wait_stream(aside)
        for tensor in inputs.tensors().values():
            tensor.record_stream(present)  # its memory is not given to the next copy before
        yield inputs


def render_inputs(
    inputs: StepInputs, size: tuple[int, int], heatmap: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Views (B, 3, *size), targets (B, 17, 64, 48) and weights (B, 17), on the inputs' device.

    ``heatmap``: the loss's kind. Waits for nothing: only work on the device.
    """
    images = resize_views(
        render_views(inputs.images, inputs.to_image, inputs.gain, inputs.lift), size
    )
    target, weights = encode(inputs.joints, inputs.confidence)
    if heatmap == "cross_entropy":
        # A softmax has no way to say "outside": such joints teach nothing.
        x, y = inputs.joints.unbind(2)
        height, width = target.shape[2:]
        inside = (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)
        weights = weights * inside
    return images.contiguous(memory_format=torch.channels_last), target, weights
