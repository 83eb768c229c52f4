"""An estimator in other processes: refused at once after a fork, rebuilt from a pickle."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from sdpose_core import PoseEstimator
from sdpose_core.hardware.processes import ForkedError
from sdpose_core.types import Image
from tests.core.test_estimator import BrightSpot

BOX = [[[48.0, 399.0, 246.0, 902.0]]]


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator.from_pretrained(detector_size=416, precision="fp32")


def _use(estimator: PoseEstimator, bus: Image) -> None:
    estimator.estimate([bus], BOX)


def _load() -> None:
    PoseEstimator.from_pretrained()


def _refusal(queue: multiprocessing.Queue, what: object, *values: object) -> None:
    try:
        what(*values)  # type: ignore[operator]
    except ForkedError as error:
        queue.put(str(error))
    else:
        queue.put("answered")


@pytest.mark.parametrize("what", [_use, _load])
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_is_told_at_once(estimator: PoseEstimator, bus: Image, what: object) -> None:
    _use(estimator, bus)
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    values = (estimator, bus) if what is _use else ()
    child = fork.Process(target=_refusal, args=(queue, what, *values))
    child.start()
    said = queue.get(timeout=300)
    child.join(300)
    assert child.exitcode == 0
    assert "forked after networks had been loaded" in said
    assert "spawn" in said
    _use(estimator, bus)  # the parent is as before


def test_a_pickle_carries_the_recipe(estimator: PoseEstimator, bus: Image) -> None:
    data = pickle.dumps(estimator)
    assert len(data) < 1000
    again = pickle.loads(data)
    (expected,), (found,) = (one.estimate([bus], BOX) for one in (estimator, again))
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
    assert (again.precision, again.student_name) == ("fp32", "sdpose-lite")
    assert again.detector._boxes.input_size == 416


def test_one_of_parts_has_no_recipe() -> None:
    with pytest.raises(TypeError, match="only an estimator of from_pretrained can be pickled"):
        pickle.dumps(PoseEstimator(BrightSpot()))


def test_a_spawned_child_answers(estimator: PoseEstimator, bus: Image, tmp_path: Path) -> None:
    """As data loaders and process pools use one: it goes there as a pickle."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        [found] = pool.apply_async(estimator.estimate, ([bus], BOX)).get(100)
    (expected,) = estimator.estimate([bus], BOX)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
