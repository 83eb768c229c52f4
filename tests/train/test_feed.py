"""What a step is given: decided by seed, step and process alone, whoever prepares it."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from sdpose_core.data.augment import AugmentConfig
from sdpose_core.data.batches import SampleStream
from sdpose_core.train.config import DataConfig, TrainConfig
from sdpose_core.train.feed import StepInputs, render_inputs, step_inputs
from tests.train.people import crop_set

CONFIG = TrainConfig(seed=5, data=DataConfig(workers=0, augment=AugmentConfig(colour=0.2)))
CPU = torch.device("cpu")


def some(config: TrainConfig, start: int, count: int, rank: int = 0) -> list[StepInputs]:
    """``count`` inputs of two samples from step ``start`` on, in a run of two processes."""
    crops, stream = crop_set(8), SampleStream(np.ones(8), config.seed)
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


def test_doubtful_and_hidden_joints_weigh_nothing() -> None:
    config = replace(CONFIG, data=replace(CONFIG.data, minimum_confidence=0.5))
    (inputs,) = some(config, 0, 1)
    confidence = torch.ones(2, 17)
    confidence[0, 3] = 0.0
    joints = torch.full((2, 17, 2), 20.0)
    joints[1, 4] = torch.tensor([-1.0, 30.0])  # just outside, its Gaussian reaches in
    inputs = replace(inputs, joints=joints, confidence=confidence)
    images, target, weights = render_inputs(inputs, (128, 96), "cross_entropy")
    assert images.shape == (2, 3, 128, 96)
    assert target.shape == (2, 17, 64, 48)
    assert (weights == 0).nonzero().tolist() == [[0, 3], [1, 4]]
    _, _, published = render_inputs(inputs, (128, 96), "mse")
    assert (published == 0).nonzero().tolist() == [[0, 3]]
