"""The stateless network against ultralytics' own forward pass, and suppression against theirs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpose_core.detector import DetectorError
from sdpose_core.detector.classes import class_numbers
from sdpose_core.detector.network import (
    PersonNetwork,
    anchor_grid,
    decode,
    keep_rows,
)
from sdpose_core.detector.yolo import suppress
from tests.core.detectors import COCO_START, random_model


@pytest.mark.parametrize(
    ("design", "end_to_end"),
    [("yolov8n", False), ("yolo11n", False), ("yolo26n", False), ("yolo26n", True)],
)
@pytest.mark.parametrize("names", [COCO_START, {0: "car", 1: "Person"}, {0: "person"}])
def test_agrees_with_ultralytics(design: str, end_to_end: bool, names: dict[int, str]) -> None:
    model = random_model(design, names)
    [index] = class_numbers((), names, len(names), "test")
    head = model.model[-1]
    if end_to_end:
        head.end2end = True
    images = torch.randint(0, 256, (2, 96, 160, 3), dtype=torch.uint8)
    with torch.inference_mode():
        _, raw = model(images.permute(0, 3, 1, 2) / 255)
        expected = head._inference(raw["one2one"] if end_to_end else raw.get("one2many", raw))
    mine = copy.deepcopy(model)
    keep_rows(mine, [index])
    network = PersonNetwork(mine)
    with torch.inference_mode():
        distances, scores = network(images)
    assert network.needs_nms is not end_to_end
    np.testing.assert_allclose(scores, expected[:, 4 + index], rtol=1e-4, atol=1e-7)
    centres, steps = anchor_grid(96, 160, network.strides)
    for image in range(2):
        boxes = decode(distances[image].T.numpy(), centres, steps)
        theirs = expected[image, :4].T.numpy()
        if not end_to_end:  # they answer centre and size
            theirs = np.concatenate(
                [theirs[:, :2] - theirs[:, 2:] / 2, theirs[:, :2] + theirs[:, 2:] / 2], axis=1
            )
        np.testing.assert_allclose(boxes, theirs, atol=2e-2)


def test_person_is_found_by_name() -> None:
    assert class_numbers((), {0: "car", 7: " Person "}, 2, "x") == [7]
    with pytest.raises(DetectorError, match=r"x: .* no class named 'person' \(classes: cat, dog"):
        class_numbers((), {0: "cat", 1: "dog"}, 2, "x")


@settings(deadline=None)
@given(
    count=st.integers(0, 60),
    seed=st.integers(0, 2**16),
    max_overlap=st.floats(0.2, 0.9),
)
def test_suppression_is_that_of_ultralytics(count: int, seed: int, max_overlap: float) -> None:
    from ultralytics.utils.nms import TorchNMS

    random = np.random.default_rng(seed)
    corner = random.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(5, 60, (count, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    scores = random.permutation(np.linspace(0.1, 0.9, count)).astype(np.float32)
    expected = TorchNMS.nms(torch.from_numpy(boxes), torch.from_numpy(scores), max_overlap)
    assert suppress(boxes, scores, max_overlap).tolist() == expected.tolist()
