"""A student of other sizes and another padding answers in the right place, end to end."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from sdpose_core import PoseEstimator
from sdpose_core.model import PRESETS, Student, StudentConfig
from tests.core.test_estimator import BrightSpot

SMALL = replace(
    PRESETS["sdpose-t"],
    input_size=(160, 120),
    heatmap_size=(32, 24),
    patch_size=(4, 3),
    padding=1.6,
)
LONG = replace(PRESETS["sdpose-t"], input_size=(256, 128), heatmap_size=(64, 32), patch_size=(4, 4))


@pytest.mark.parametrize(
    "config", [SMALL, LONG, PRESETS["sdpose-lite"]], ids=["small", "long", "lite"]
)
@pytest.mark.parametrize("flip_test", [False, True])
def test_a_lit_pixel_is_found_where_it_is(config: StudentConfig, flip_test: bool) -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(image, (230, 140), 4, (255, 255, 255), -1)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    estimator = PoseEstimator(BrightSpot(config))
    [poses] = estimator.estimate(
        [image], [[[150, 60, 260, 250], [200, 100, 330, 200]]], flip_test=flip_test
    )
    np.testing.assert_allclose(poses.keypoints, np.tile([230, 140], (2, 17, 1)), atol=4)


def test_the_aligned_mirror_takes_the_flip_tests_shift_away() -> None:
    """Half a crop pixel, which the published mirror leaves."""
    image = np.zeros((256, 192, 3), np.uint8)
    cv2.circle(image, (100, 120), 3, (255, 255, 255), -1)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    box = [[[19, 25, 173, 230]]]
    shifts = []
    for aligned in (False, True):
        config = replace(PRESETS["sdpose-t"], aligned_flip=aligned)
        estimator = PoseEstimator(BrightSpot(config))
        [plain] = estimator.estimate([image], box)
        [merged] = estimator.estimate([image], box, flip_test=True)
        shifts.append(float((merged.keypoints - plain.keypoints)[0, 0, 0]))
    assert 0.3 < shifts[0] < 0.7
    assert abs(shifts[1]) < 0.05


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heatmap_size": (64, 40)}, "a different aspect"),
        ({"input_size": (250, 192)}, "multiple of"),
        ({"padding": 0.0}, "padding"),
        ({"backbone": "resnet"}, "unknown backbone"),
        ({"head": "correction"}, "its own heatmaps"),
        ({"served_cycles": 9}, "cycles: expected 1 to 3"),
        ({"patch_size": (5, 3)}, "patch_size"),
        ({"heads": 7}, "embed_dim"),
        ({"depth": 0}, "depth"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(PRESETS["sdpose-t"], **wrong)


def test_an_untrained_correction_changes_nothing() -> None:
    student = Student(PRESETS["sdpose-lite"]).eval()
    images = torch.randint(0, 256, (1, 3, 256, 192), dtype=torch.uint8)
    with torch.inference_mode():
        own = student(images, 0)
        assert tuple(own.shape) == (1, 17, 64, 48)
        for cycles in (1, 2):
            torch.testing.assert_close(student(images, cycles), own)
        assert len(student.cycles(student.features(images))) == 3
        with pytest.raises(ValueError, match="cycles: expected 0 to 2, got 3"):
            student(images, 3)
