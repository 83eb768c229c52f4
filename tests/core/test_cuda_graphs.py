"""Replayed calls, with a capture that needs no GPU (`tools.bench.gpu` tries the real one)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from sdpose_core.detector.load import load_detector
from sdpose_core.detector.runners import TorchRunner, among_best
from sdpose_core.detector.weights import find_detector
from sdpose_core.hardware.cuda_graphs import Function, GraphedCalls


class Recorder:
    """Records as a graph does: the same memory at every replay."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(
        self, function: Function, inputs: Tensor, options: tuple[Hashable, ...]
    ) -> Callable[[Tensor], Tensor]:
        self.shapes.append(tuple(inputs.shape))
        held = inputs.clone()
        answer = function(held, *options).clone()

        def replay(given: Tensor) -> Tensor:
            held.copy_(given)
            answer.copy_(function(held, *options))
            return answer.clone()

        return replay


def scaled(inputs: Tensor, factor: float = 1.0) -> Tensor:
    return inputs * factor


def test_a_shape_is_recorded_once_and_answers_as_the_function() -> None:
    recorder = Recorder()
    call = GraphedCalls(scaled, capture=recorder)
    first, second = torch.rand(2, 3), torch.rand(2, 3)
    torch.testing.assert_close(call(first, 2.0), first * 2)
    kept = call(second, 2.0)
    call(first, 2.0)  # what was given out stays
    torch.testing.assert_close(kept, second * 2)
    torch.testing.assert_close(call(second, 3.0), second * 3)
    call(torch.rand(4, 3), 2.0)
    assert recorder.shapes == [(2, 3), (2, 3), (4, 3)]


def test_no_more_graphs_than_the_limit() -> None:
    recorder = Recorder()
    call = GraphedCalls(scaled, limit=2, capture=recorder)
    for count in (1, 2, 3, 4, 1, 3):
        inputs = torch.rand(count)
        torch.testing.assert_close(call(inputs, 5.0), inputs * 5)
    assert recorder.shapes == [(1,), (2,)]


def test_what_cannot_be_recorded_runs_without_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    tried = 0

    def refuses(*_: object) -> Callable[[Tensor], Tensor]:
        nonlocal tried
        tried += 1
        raise RuntimeError("operation not permitted when stream is capturing")

    call = GraphedCalls(scaled, capture=refuses)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            torch.testing.assert_close(call(torch.ones(2), 2.0), torch.full((2,), 2.0))
    assert tried == 1
    assert "not permitted" in caplog.text


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_a_replay_that_answers_otherwise_is_not_used(
    wrong: float, caplog: pytest.LogCaptureFixture
) -> None:
    def spoils(function: Function, inputs: Tensor, options: object) -> Callable[[Tensor], Tensor]:
        return lambda given: given * wrong

    call = GraphedCalls(scaled, capture=spoils)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(call(torch.ones(2)), torch.ones(2))
    assert "replays wrongly" in caplog.text


def test_an_exhausted_device_is_not_taken_for_a_graph_that_fails() -> None:
    def exhausts(*_: object) -> Callable[[Tensor], Tensor]:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        GraphedCalls(scaled, capture=exhausts)(torch.ones(2))


def test_threads_do_not_see_each_others_answers() -> None:
    call = GraphedCalls(scaled, capture=Recorder())

    def ask(value: float) -> bool:
        inputs = torch.full((64,), value)
        return bool((call(inputs, 2.0) == 2 * value).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


@pytest.mark.parametrize("count", [1, 3])
def test_the_best_anchors_are_those_above_the_threshold(count: int) -> None:
    runner = TorchRunner(find_detector("embedded").network(), "cpu")
    batch = np.random.default_rng(3).integers(0, 256, (count, 96, 128, 3), dtype=np.uint8)
    expected = runner.candidates(batch, 0.0005)
    with torch.inference_mode():
        best = runner._find_best(torch.from_numpy(batch)).numpy()
    found = among_best(best, 0.0005)
    assert found is not None
    assert len(found.scores) == len(expected.scores) > 0
    order = np.lexsort((found.anchor, found.image))
    np.testing.assert_array_equal(found.image[order], expected.image)
    np.testing.assert_array_equal(found.anchor[order], expected.anchor)
    np.testing.assert_allclose(found.distances[order], expected.distances, rtol=1e-5)
    np.testing.assert_allclose(found.scores[order], expected.scores, rtol=1e-5)


def test_more_anchors_than_were_kept_are_not_cut_off() -> None:
    best = np.zeros((2, 6, 4), np.float32)
    best[:, 4] = [[0.9, 0.8, 0.7, 0.6], [0.9, 0.1, 0.1, 0.1]]
    assert among_best(best, 0.5) is None
    found = among_best(best, 0.65)
    assert found is not None
    assert found.image.tolist() == [0, 0, 0, 1]


def test_a_detector_on_the_cpu_uses_none() -> None:
    detector = load_detector(device="cpu", backend="torch")
    assert detector._runner._best is None  # type: ignore[attr-defined]
