"""What a step is given: decided by seed, step and process alone, whoever prepares it."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch

from sdpose_core.data.augment import AugmentConfig
from sdpose_core.data.batches import SampleStream
from sdpose_core.data.held import hold
from sdpose_core.data.shards import CONTEXT_SIZE, CropSet, context_regions
from sdpose_core.model import PRESETS, StudentConfig
from sdpose_core.train.loop.feed import StepInputs, render_inputs, step_inputs
from sdpose_core.train.recipe.config import DataConfig, TrainConfig
from sdpose_core.types import ViewGeometry
from tests.train.people import crop_set

PAPER = PRESETS["sdpose-t"]
CONFIG = TrainConfig(seed=5, data=DataConfig(workers=0, augment=AugmentConfig(colour=0.2)))
CPU = torch.device("cpu")


def some(
    config: TrainConfig,
    start: int,
    count: int,
    rank: int = 0,
    student: StudentConfig = PAPER,
    crops: CropSet | None = None,
) -> list[StepInputs]:
    """``count`` inputs of two samples from step ``start`` on, in a run of two processes."""
    crops, stream = crops or crop_set(8), SampleStream(np.ones(8), config.seed)
    inputs = step_inputs(
        config,
        crops,
        stream,
        CPU,
        samples=4 * start,
        step=start,
        batch_size=2,
        rank=rank,
        world=2,
        student=student,
        held=hold(crops, CPU) if config.data.on_device else None,
    )
    return list(islice(inputs, count))


def same(one: StepInputs, other: StepInputs) -> bool:
    pairs = zip(one.tensors().values(), other.tensors().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_threads_and_a_later_start_change_nothing() -> None:
    whole = some(CONFIG, 0, 5)
    threads = some(replace(CONFIG, data=replace(CONFIG.data, workers=3)), 0, 5)
    later = some(CONFIG, 3, 2)
    assert all(same(a, b) for a, b in zip(whole, threads, strict=True))
    assert all(same(a, b) for a, b in zip(whole[3:], later, strict=True))
    assert not torch.equal(whole[0].to_image, whole[1].to_image)
    assert not torch.equal(whole[0].to_image, some(CONFIG, 0, 1, rank=1)[0].to_image)
    assert not torch.equal(whole[0].to_image, some(replace(CONFIG, seed=6), 0, 1)[0].to_image)


def test_pictures_on_the_device_give_the_same_views() -> None:
    """Decoded by any thread, and with another view than 3:4."""
    student = replace(PAPER, input_size=(96, 96), heatmap_size=(24, 24), padding=1.1)
    held = replace(CONFIG, data=replace(CONFIG.data, on_device=True, workers=2))
    for one, other in zip(
        some(CONFIG, 1, 4, student=student), some(held, 1, 4, student=student), strict=True
    ):
        assert same(one, other)
        shown = [render_inputs(part, student.view) for part in (one, other)]
        assert shown[0][0].shape == (2, 3, 96, 96)
        assert shown[0][1].shape == (2, 17, 24, 24)
        assert all(torch.equal(a, b) for a, b in zip(*shown, strict=True))


def test_crops_of_two_sizes_are_not_held() -> None:
    small = cv2.imencode(".webp", np.zeros((40, 30, 3), np.uint8))[1].tobytes()
    crops = crop_set(3)
    mixed = replace(crops, images=(*crops.images[:2], small))
    with pytest.raises(ValueError, match="sample 2 of source"):
        hold(mixed, CPU)


def test_the_view_in_a_shard_follows_padding_and_aspect() -> None:
    """A person fills more of a view of less padding; joints stay on their pixels."""
    plain = replace(CONFIG, data=replace(CONFIG.data, augment=AugmentConfig.none()))
    student = replace(PAPER, input_size=(128, 96), heatmap_size=(32, 24), padding=1.0)
    (far,), (near,) = some(plain, 0, 1), some(plain, 0, 1, student=student)
    # The middle of the crop is the middle of either heatmap, distances from it are 1.25 / 1.0 in
    # units of the view.
    centre = torch.tensor([24.0, 32.0])
    torch.testing.assert_close(
        (near.joints - centre / 2) / (24, 32)[0], (far.joints - centre) / 48 * 1.25,
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    square = context_regions(1, CONTEXT_SIZE, ViewGeometry((64, 64), (16, 16), 1.25))
    np.testing.assert_allclose(square.sizes, [[256, 256]])
