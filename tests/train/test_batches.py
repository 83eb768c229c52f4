"""Which sample comes when."""

from __future__ import annotations

import threading
from itertools import islice

import numpy as np
import pytest

from sdpose_core.data.batches import CropBatch, SampleStream, iterate_batches, sample_weights
from tests.train.people import crop_set


def test_every_pass_shows_each_sample_as_often_as_its_weight() -> None:
    weights = np.array([1.0, 3.0, 0.5, 0.5, 2.0])
    stream = SampleStream(weights, seed=3)
    assert stream.pass_length == 7
    counts = np.bincount(stream.take(0, 7 * 400), minlength=5) / 400
    np.testing.assert_allclose(counts, weights, atol=0.1)
    first = np.bincount(stream.take(0, 7), minlength=5)
    assert np.all(np.abs(first - weights) < 1)


def test_position_alone_decides() -> None:
    weights = np.ones(50)
    whole = SampleStream(weights, seed=1).take(0, 170)
    parts = SampleStream(weights, seed=1)
    np.testing.assert_array_equal(parts.take(120, 50), whole[120:])
    np.testing.assert_array_equal(parts.take(30, 60), whole[30:90])
    assert sorted(whole[:50]) == list(range(50))
    assert not np.array_equal(whole[:50], SampleStream(weights, seed=2).take(0, 50))


def as_it_is(batch: CropBatch, number: int) -> CropBatch:
    return batch


def test_processes_share_a_batch_without_overlap() -> None:
    crops = crop_set(12)
    stream = SampleStream(np.ones(12), seed=0)
    shown = []
    for rank in range(2):
        batches = iterate_batches(
            crops, stream, start=0, batch_size=3, make=as_it_is, rank=rank, world=2, workers=0
        )
        shown.append([b.keypoints for b in islice(batches, 2)])
    together = np.concatenate([np.concatenate(s) for s in shown])
    assert len(np.unique(together.reshape(12, -1), axis=0)) == 12


def test_every_thread_has_a_batch_in_hand() -> None:
    """With a batch a task, fewer tasks than threads would leave threads without work."""
    crops = crop_set(2)
    together = threading.Barrier(7)

    def make(batch: CropBatch, number: int) -> int:
        if number < 7:
            together.wait(timeout=300)  # passes only if seven are at work at the same time
        return number

    stream = SampleStream(np.ones(2), seed=0)
    batches = iterate_batches(crops, stream, start=0, batch_size=1, make=make, workers=7)
    assert list(islice(batches, 8)) == list(range(8))


def test_weights_are_those_of_the_sources() -> None:
    crops = crop_set(4)  # sources a b a b
    np.testing.assert_array_equal(sample_weights(crops, {"b": 0.5}), [1.0, 0.5, 1.0, 0.5])


@pytest.mark.parametrize("weights", [[], [-1.0, 2.0], [0.1, 0.2]])
def test_useless_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        SampleStream(np.array(weights), seed=0)
