"""Labels that a network's views vote for, and their fusion with those of the shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.data.shards import CONTEXT_SIZE, CropSet
from sdpose_core.model import PRESETS, Student, StudentConfig
from sdpose_core.skeleton import FLIP_INDICES
from sdpose_core.train.loop.view_labels import (
    BOX_SIDE,
    fuse,
    label_crops,
    photographs,
    read_labels,
    view_answers,
    vote,
    write_labels,
)
from sdpose_core.train.recipe.config import ViewLabelConfig

VIEWS = ViewLabelConfig(paddings=(1.0, 1.2, 1.5), sure=0.8, doubtful=("sport",), complete=("full",))
WIDE = StudentConfig("wide", input_size=(192, 192), heatmap_size=(48, 48), padding=1.1)


class LitPixels(Student):
    """Sees lamps: the nose is red, of a pair the left one is the green lamp on the view's right.

    As with people: in the mirror it takes the left one for the right one.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        taps = torch.arange(-24, 25)
        self.blur = torch.exp(-(taps**2) / 128.0)

    def forward(self, images: Tensor, cycles: int | None = None) -> Tensor:
        middle = images.shape[3] // 2
        red, green = images[:, 0:1] / 255, images[:, 1:2] / 255
        right, left = green.clone(), green.clone()
        right[..., :middle] = 0
        left[..., middle:] = 0
        side = [red] + [right, left] * 8
        maps = torch.cat(side, 1)
        for shape, step in (((-1, 1), (4, 1)), ((1, -1), (1, 4))):
            kernel = self.blur.reshape(1, 1, *shape).expand(17, 1, -1, -1)
            pad = (kernel.shape[2] // 2, kernel.shape[3] // 2)
            maps = F.conv2d(maps, kernel, stride=step, padding=pad, groups=17)
        # As high as the lamp is bright, however large the view shows it.
        return maps / maps.amax((2, 3), keepdim=True).clamp_min(1e-6) * 0.9


def lamps(count: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Context crops with a red and two green lamps, and where joints are: (count, 17, 2)."""
    rng = np.random.default_rng(0)
    width, height = CONTEXT_SIZE
    rows, columns = np.mgrid[:height, :width]
    pictures = np.full((count, height, width, 3), 20, np.float32)
    pictures[..., :2] = 0
    joints = np.zeros((count, 17, 2), np.float32)
    for picture, points in zip(pictures, joints, strict=True):
        nose = rng.uniform((110, 130), (160, 200))
        left = rng.uniform((150, 120), (185, 250))
        right = rng.uniform((80, 120), (115, 250))
        for plane, (x, y) in ((0, nose), (1, left), (1, right)):
            picture[..., plane] += 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
        points[0], points[1::2], points[2::2] = nose, left, right
    return pictures.clip(0, 255).astype(np.uint8), joints


@pytest.mark.parametrize("config", [PRESETS["sdpose-t"], WIDE], ids=["3:4", "1:1"])
def test_lit_pixels_are_found_through_every_view(config: StudentConfig) -> None:
    pictures, joints = lamps()
    points, peaks = view_answers(LitPixels(config).eval(), torch.from_numpy(pictures), VIEWS)
    assert points.shape == (6, 3, 17, 2)
    assert np.abs(points - joints).max() < 1
    np.testing.assert_allclose(peaks, 0.9, atol=1e-3)
    found, scores = vote(points, peaks)
    assert np.abs(found - joints).max() < 0.5
    assert scores.min() > 0.85
    # Left and right are told apart by the mirror: a pair not swapped back would vote for the other.
    assert np.abs(joints - joints[:, list(FLIP_INDICES)]).max() > 30


def test_a_view_that_is_far_off_does_not_move_a_joint() -> None:
    points = np.full((4, 1, 17, 2), 100, np.float32)
    points[3] = 200
    found, scores = vote(points, np.full((4, 1, 17), 0.8, np.float32))
    np.testing.assert_allclose(found, 100, atol=1e-3)
    np.testing.assert_allclose(scores, 0.6, atol=1e-3)
    points[3, :, 5] = 100
    assert vote(points, np.full((4, 1, 17), 0.8, np.float32))[1][0, 5] == pytest.approx(0.8)


def test_the_photograph_ends_where_the_crop_is_black() -> None:
    picture = torch.zeros(2, 50, 40, 3, dtype=torch.uint8)
    picture[:, 5:45, 10:33] = 90
    picture[1, :, :, 1] = 200
    np.testing.assert_array_equal(photographs(picture), [[10, 32, 5, 44], [0, 39, 0, 49]])


def one_person(
    confidence: float, *, off: float = 0.0, human: bool = False, source: str = "a"
) -> CropSet:
    """A sample whose every joint is labelled ``off`` units of a box right of (100, 100)."""
    keypoints = np.full((1, 17, 3), 100, np.float32)
    keypoints[..., 0] += off * BOX_SIDE
    keypoints[..., 2] = confidence
    if confidence == 0:
        keypoints[:] = 0
    return CropSet((b"",), keypoints, (source,), np.array([human]))


RULES = {
    "a machine agrees": (one_person(0.6, off=0.04), 0.4, (None, 0.6, 1.0)),
    "a surer machine does not": (one_person(0.9, off=0.2), 0.4, (0.2, 0.9, 0.3)),
    "a less sure machine does not": (one_person(0.3, off=0.2), 0.4, (0.0, 0.5, 0.3)),
    "a machine is silent": (one_person(0.0), 0.4, (0.0, 0.375, 0.5)),
    "by hand": (one_person(1.0, off=0.3, human=True), 0.4, (0.3, 1.0, 1.5)),
    "by doubtful hands, near": (
        one_person(1.0, off=0.06, human=True, source="sport"), 0.4, (0.03, 1.0, 1.0)),
    "by doubtful hands, far": (
        one_person(1.0, off=0.3, human=True, source="sport"), 0.4, (0.3, 1.0, 0.4)),
    "left out by people": (one_person(0.0, human=True), 0.4, (0.0, 0.5, 1.0)),
    "left out by thorough people": (
        one_person(0.0, human=True, source="full"), 0.4, (0.0, 0.15, 1.0)),
    "very sure": (one_person(0.0, human=True), 1.1, (0.0, 1.0, 1.0)),
}  # fmt: skip


@pytest.mark.parametrize("rule", list(RULES))
def test_rules_of_fusion(rule: str) -> None:
    crops, score, (off, amplitude, weight) = RULES[rule]
    points = np.full((1, 17, 2), 100, np.float32)
    scores = np.full((1, 17), score, np.float32)
    everywhere = np.array([[0, 268, 0, 357]], np.float32)
    joints, heights = fuse(crops, points, scores, everywhere, VIEWS)
    if off is None:  # between the two, by how sure they are: 0.35 * 0.6 to 0.65 * 0.5
        off = 0.04 * 0.21 / (0.21 + 0.325)
    np.testing.assert_allclose(joints[..., 0], 100 + off * BOX_SIDE, atol=1e-3)
    np.testing.assert_allclose(joints[..., 1], 100, atol=1e-3)
    np.testing.assert_allclose(joints[..., 2], weight, atol=1e-6)
    np.testing.assert_allclose(heights, amplitude, atol=1e-6)


def test_beyond_the_photograph_there_is_nothing() -> None:
    points = np.full((1, 17, 2), 100, np.float32)
    points[0, 3] = (150, 100)
    area = np.array([[0, 120, 0, 357]], np.float32)
    joints, heights = fuse(one_person(0.0), points, np.ones((1, 17), np.float32), area, VIEWS)
    assert (heights == 0).nonzero()[1].tolist() == [3]
    assert joints[0, 3, 2] == 1


def test_labels_are_kept_for_these_crops_only(tmp_path: Path) -> None:
    pictures, joints = lamps(2)
    keypoints = np.zeros((2, 17, 3), np.float32)
    crops = CropSet((b"", b""), keypoints, ("a", "b"), np.array([False, False]))
    teacher = LitPixels(PRESETS["sdpose-t"]).eval()
    labelled = label_crops(
        teacher, crops, lambda chosen: torch.from_numpy(pictures[chosen]), VIEWS, batch=1
    )
    assert np.abs(labelled.keypoints[..., :2] - joints).max() < 0.5
    assert read_labels(tmp_path, crops) is None
    write_labels(tmp_path, crops, labelled)
    again = read_labels(tmp_path, crops)
    assert again is not None
    assert again.amplitudes is not None
    assert labelled.amplitudes is not None
    np.testing.assert_array_equal(again.keypoints, labelled.keypoints)
    np.testing.assert_array_equal(again.amplitudes, labelled.amplitudes)
    with pytest.raises(ValueError, match="belong to other crops"):
        read_labels(tmp_path, CropSet((b"", b""), keypoints + 1, ("a", "b"), crops.human))
    path = tmp_path / "labels.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not readable labels"):
        read_labels(tmp_path, crops)
