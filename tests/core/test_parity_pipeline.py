"""The code around the network computes what the published implementation computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sdpose_core.skeleton import COCO17
from sdpose_core.types import Regions
from sdpose_core.vision.crops import crop_image, crop_tensor
from sdpose_core.vision.geometry import (
    apply_matrices,
    heatmap_to_image,
    image_to_crop_matrices,
    invert_matrices,
    regions_from_boxes,
)
from sdpose_core.vision.heatmaps import decode, encode, merge_flip, unflip
from sdpose_core.vision.oks import oks_matrix, oks_nms
from tests.core.parity import FACTS

Facts = Mapping[str, NDArray[Any]]
UNIT = np.float32(200)  # the reference measures a view in units of 200 pixels


@pytest.fixture(scope="module")
def known() -> Facts:
    with np.load(FACTS / "pipeline.npz") as file:
        return dict(file)


def test_skeleton(known: Facts) -> None:
    pairs = {(left, right) for left, right in enumerate(COCO17.mirror) if left < right}
    assert pairs == {tuple(pair) for pair in known["meta/flip_pairs"].tolist()}
    assert list(COCO17.sigmas) == known["meta/sigmas"].tolist()
    assert list(COCO17.upper) == known["meta/upper_body_ids"].tolist()


def test_boxes_to_views(known: Facts) -> None:
    boxes = known["box/xywh"].copy()
    boxes[:, 2:] += boxes[:, :2]
    regions = regions_from_boxes(boxes)
    np.testing.assert_allclose(regions.centres, known["box/center"], atol=5e-5)
    np.testing.assert_allclose(regions.sizes / UNIT, known["box/scale"], atol=1e-6)


def test_crop_matrix_and_joints(known: Facts) -> None:
    regions = Regions(known["affine/center"], known["affine/scale"] * UNIT)
    matrices = image_to_crop_matrices(regions)
    np.testing.assert_allclose(matrices, known["affine/matrix"], atol=5e-5)
    np.testing.assert_allclose(invert_matrices(matrices), known["affine/matrix_inv"], atol=5e-5)
    joints = apply_matrices(matrices, known["affine/joints_in"][..., :2])
    visible = known["affine/joints_vis"][..., 0] > 0
    np.testing.assert_allclose(
        joints[visible], known["affine/joints_out"][..., :2][visible], atol=1e-4
    )


@pytest.mark.parametrize("index", range(4))
def test_crop_pixels(known: Facts, index: int) -> None:
    image = known[f"affine/img_{index:02d}"]
    chosen = slice(index, index + 1)
    regions = Regions(known["affine/center"][chosen], known["affine/scale"][chosen] * UNIT)
    expected = known["affine/crop_cv5"][index].astype(float)  # every fourth row
    by_opencv = crop_image(image, regions)[0, ::4].astype(float)
    by_torch = crop_tensor(torch.from_numpy(image), regions)[0].permute(1, 2, 0)[::4].numpy()
    # OpenCV 4 warps in coarser fixed point than 5: up to five grey levels in 6 % of the bytes.
    assert np.abs(by_opencv - expected).max() <= 5
    assert np.abs(by_torch - expected).max() <= 1


def test_targets(known: Facts) -> None:
    joints = torch.from_numpy(known["target/joints"][..., :2]) / 4
    heatmaps, weights = encode(joints, torch.from_numpy(known["target/vis"][..., 0]))
    np.testing.assert_allclose(heatmaps, known["target/heatmap_f16"], atol=5e-4)
    np.testing.assert_array_equal(weights, known["target/weight"][..., 0])


def test_flip(known: Facts) -> None:
    heatmaps = torch.from_numpy(known["fliptest/heatmap"])
    mirrored = torch.from_numpy(known["fliptest/heatmap_of_flipped_img"])
    np.testing.assert_array_equal(unflip(mirrored, COCO17.mirror), known["fliptest/back_shifted"])
    np.testing.assert_allclose(
        merge_flip(heatmaps, mirrored, COCO17.mirror), known["fliptest/avg"], atol=1e-7
    )


def test_decoding(known: Facts) -> None:
    points, scores = decode(known["decode/heatmaps"])
    expected = known["decode/unbiased_coords_heatmap"]
    error = np.abs(points - expected).max(axis=2)
    assert np.median(error) < 1e-5
    assert error.max() < 5e-4  # a nearly flat peak: the Newton step divides by a tiny curvature
    np.testing.assert_array_equal(scores, known["decode/unbiased_maxvals"][..., 0])
    regions = Regions(known["decode/center"], known["decode/scale"] * UNIT)
    image = heatmap_to_image(expected, regions)
    np.testing.assert_allclose(image, known["decode/unbiased_preds_img"], atol=1e-3)


@pytest.mark.parametrize("case", range(10))
def test_oks(known: Facts, case: int) -> None:
    keypoints = known[f"oks/{case:02d}_kpts"][..., :2]
    areas, scores = known[f"oks/{case:02d}_areas"], known[f"oks/{case:02d}_scores"]
    similarity = oks_matrix(keypoints, areas, keypoints, areas, COCO17.sigmas)
    np.testing.assert_allclose(similarity, known[f"oks/{case:02d}_iou"], atol=1e-6)
    for threshold, name in ((0.9, "keep09"), (0.5, "keep05")):
        kept = oks_nms(keypoints, scores, areas, COCO17.sigmas, threshold)
        assert kept.tolist() == known[f"oks/{case:02d}_{name}"].tolist()
