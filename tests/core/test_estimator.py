"""The estimator on real photographs and on a hand-written backend; both backends agree."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from sdpose_core import PoseEstimator
from sdpose_core.checkpoints import load_student
from sdpose_core.estimator import USUAL_ASPECTS
from sdpose_core.hardware.backends import make_backend
from sdpose_core.hardware.backends.torch import TorchBackend
from sdpose_core.hardware.batches import split_batch
from sdpose_core.model import PRESETS, JointReader, StudentConfig
from sdpose_core.types import Detections, Image
from sdpose_core.vision.geometry import image_to_heatmap, regions_from_boxes
from sdpose_core.vision.heatmaps import encode


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator.from_pretrained()


class BrightSpot:
    """A backend that answers every joint with the brightest place of the crop."""

    name = "torch"
    device = torch.device("cpu")
    precision = "fp32"
    pads = False

    batch_sizes = (1, 2, 4)

    def __init__(self, config: StudentConfig = PRESETS["sdpose-t"]) -> None:
        self.config = config
        self.seen: list[int] = []
        self.cycles: list[int] = []

    def reader(self, module: JointReader) -> JointReader:
        return module

    def run(self, crops: Tensor, cycles: int = 1) -> Tensor:
        assert tuple(crops.shape[2:]) == self.config.input_size
        self.seen.append(len(crops))
        self.cycles.append(cycles)
        place = crops.float().mean(dim=1).flatten(1).argmax(dim=1)
        height, width = self.config.input_size
        step = height / self.config.heatmap_size[0]
        spots = torch.stack((place % width, place // width), dim=1).float() / step
        joints = spots[:, None].expand(-1, 17, -1)
        size = self.config.view.heatmap_size
        return encode(joints, torch.ones(len(crops), 17), size=size)[0]


class TwoPeople:
    """A detector that finds the same two people in every picture."""

    name = "two"

    def detect(self, images: Sequence[Image | Tensor]) -> list[Detections]:
        boxes = np.array([[10, 10, 50, 90], [60, 20, 95, 95]], np.float32)
        return [Detections(boxes, np.array([0.9, 0.4], np.float32)) for _ in images]


class Counting:
    """A detector that finds nobody and remembers what it was shown."""

    name = "counting"

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.images: list[Image | Tensor] = []

    def detect(self, images: Sequence[Image | Tensor]) -> list[Detections]:
        self.counts.append(len(images))
        self.images.extend(images)
        return [Detections.empty() for _ in images]


def lit(x: int, y: int, shape: tuple[int, int] = (100, 100)) -> Image:
    image = np.zeros((*shape, 3), np.uint8)
    cv2.circle(image, (x, y), 3, (255, 255, 255), -1)
    return cv2.GaussianBlur(image, (0, 0), 2)


def test_a_spot_is_found_where_it_is_in_the_picture() -> None:
    estimator = PoseEstimator(BrightSpot())
    images = [lit(30, 40), lit(70, 60, (120, 90))]
    boxes = [[[10, 10, 50, 90]], [[40, 20, 85, 110], [50, 40, 80, 80]]]
    first, second = estimator.estimate(images, boxes)
    np.testing.assert_allclose(first.keypoints[0], np.tile([30, 40], (17, 1)), atol=1)
    np.testing.assert_allclose(second.keypoints, np.tile([70, 60], (2, 17, 1)), atol=1)
    # The published score: of a given box 1, times the mean of the joints'.
    assert first.scores == pytest.approx(first.keypoint_scores.mean(axis=1))
    assert first.scores[0] > 0.9
    np.testing.assert_array_equal(second.boxes, np.array(boxes[1], np.float32))


def test_people_of_all_pictures_share_batches() -> None:
    backend = BrightSpot()
    estimator = PoseEstimator(backend, TwoPeople())
    poses = estimator.estimate([lit(30, 40)] * 3)
    assert [len(people) for people in poses] == [2, 2, 2]
    assert backend.seen == [4, 2]


def test_heatmaps_and_keypoints_are_the_halves_of_pose() -> None:
    estimator = PoseEstimator(BrightSpot())
    crops = [
        estimator.crop(lit(30, 40), [[10, 10, 50, 90], [20, 20, 60, 90]]),
        estimator.crop(lit(5, 5), np.zeros((0, 4))),
        estimator.crop(lit(70, 60), [[40, 20, 85, 100]]),
    ]
    for options in ({}, {"flip_test": True}):
        heatmaps = estimator.heatmaps(crops, **options)
        assert heatmaps.shape == (3, 17, 64, 48)
        halves = estimator.keypoints(heatmaps, crops)
        assert [len(one.points) for one in halves] == [2, 0, 1]
        for half, whole in zip(halves, estimator.pose(crops, **options), strict=True):
            np.testing.assert_array_equal(half[0], whole[0])
            np.testing.assert_array_equal(half[1], whole[1])
            assert half.visibility is None  # no score head
    assert estimator.heatmaps(crops[1:2]).shape == (0, 17, 64, 48)


def test_warm_up_runs_all_that_will_be_asked_for() -> None:
    backend, detector = BrightSpot(), Counting()
    PoseEstimator(backend, detector).warm_up(max_cycles=2, detect_batch=3)
    runs = list(zip(backend.seen, backend.cycles, strict=True))
    assert {(size, cycles) for size in (1, 2, 4) for cycles in (1, 2)} <= set(runs)
    assert runs.count((1, 1)) == 3, "the flip test looks twice"
    shapes = {image.shape[:2] for image in detector.images}
    assert shapes == set(USUAL_ASPECTS)
    assert detector.counts == [1, 2, 3] * len(USUAL_ASPECTS)
    backend = BrightSpot()
    PoseEstimator(backend).warm_up()
    assert set(backend.cycles) == {1}


def test_no_batch_is_larger_than_allowed() -> None:
    backend = BrightSpot()
    estimator = PoseEstimator(backend, max_batch=3)
    estimator.warm_up()
    estimator.estimate([lit(30, 40)], [[[10, 10, 50, 90]] * 7])
    assert max(backend.seen) == 2
    assert backend.seen[-4:] == [2, 2, 2, 1]
    with pytest.raises(ValueError, match="max_batch"):
        PoseEstimator(backend, max_batch=0)


def test_a_mirrored_view_goes_up_to_a_device() -> None:
    backend = BrightSpot()
    backend.device = torch.device("meta")  # takes what a GPU takes, and holds nothing
    picture = lit(30, 40)[:, ::-1]
    frame = PoseEstimator(backend).upload(picture)
    assert isinstance(frame, Tensor)
    assert frame.shape == picture.shape


def test_a_device_that_answers_nothing_is_not_alive() -> None:
    backend = BrightSpot()
    estimator = PoseEstimator(backend)
    assert estimator.alive()
    backend.device = torch.device("meta")  # it can hold no values to read
    assert not estimator.alive()


def test_selection_of_people() -> None:
    estimator = PoseEstimator(BrightSpot(), TwoPeople())
    [best] = estimator.estimate([lit(30, 40)], max_people=1)
    assert best.boxes.tolist() == [[10, 10, 50, 90]]
    assert best.scores == pytest.approx(0.9 * best.keypoint_scores.mean(axis=1))
    [sure] = estimator.estimate([lit(30, 40)], min_score=0.5)
    assert len(sure) == 1
    [nobody] = estimator.estimate([lit(30, 40)], max_people=0)
    assert len(nobody) == 0


class OnePersonTwice(TwoPeople):
    """A detector that sees the same person in two boxes, in the second hardly."""

    def detect(self, images: Sequence[Image | Tensor]) -> list[Detections]:
        boxes = np.array([[10, 10, 50, 90], [12, 12, 52, 92]], np.float32)
        return [Detections(boxes, np.array([0.9, 0.3], np.float32)) for _ in images]


def test_a_person_is_answered_once_unless_the_caller_gives_boxes() -> None:
    estimator = PoseEstimator(BrightSpot(), OnePersonTwice())
    image = lit(30, 40)
    [once] = estimator.estimate([image])
    assert once.boxes.tolist() == [[10, 10, 50, 90]]
    [twice] = estimator.estimate([image], suppress=False)
    assert len(twice) == 2
    [given] = estimator.estimate([image], [[[10, 10, 50, 90]] * 2])
    assert len(given) == 2
    [scored] = estimator.estimate([image], min_score=0.1)
    assert len(scored) == 1


def test_nobody_gives_empty_arrays_of_the_right_shape() -> None:
    estimator = PoseEstimator(BrightSpot())
    for poses in estimator.estimate([lit(5, 5)] * 2, [np.zeros((0, 4)), []]):
        assert poses.keypoints.shape == (0, 17, 2)
        assert poses.keypoint_scores.shape == (0, 17)
        assert poses.boxes.shape == (0, 4)
        assert poses.scores.shape == (0,)
    assert estimator.estimate([], []) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused_with_the_expected_shape(image: Image) -> None:
    estimator = PoseEstimator(BrightSpot(), TwoPeople())
    with pytest.raises(ValueError, match=r"images\[1\]: expected a uint8 array of shape \(height"):
        estimator.estimate([lit(5, 5), image])


def test_unusable_requests_are_refused() -> None:
    estimator = PoseEstimator(BrightSpot())
    with pytest.raises(ValueError, match="no detector"):
        estimator.estimate([lit(5, 5)])
    with pytest.raises(ValueError, match="one array for each of the 1 images"):
        estimator.estimate([lit(5, 5)], [])
    with pytest.raises(ValueError, match=r"boxes\[0\]: every value must be finite"):
        estimator.estimate([lit(5, 5)], [[[0, 0, np.nan, 4]]])
    with pytest.raises(ValueError, match="cycles"):
        estimator.estimate([lit(5, 5)], [[[0, 0, 4, 4]]], cycles=0)
    with pytest.raises(ValueError, match="pass \\[image\\]"):
        estimator.estimate(lit(5, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "pads", "expected"),
    [
        (1, False, [1]),
        (7, False, [4, 2, 1]),
        (9, False, [8, 1]),
        (5, True, [8]),
        (16, True, [8, 8]),
        (19, True, [8, 8, 4]),
    ],
)
def test_batches(count: int, pads: bool, expected: list[int]) -> None:
    assert split_batch(count, (1, 2, 4, 8), pads=pads) == expected


def test_real_people_are_found(estimator: PoseEstimator, bus: Image, zidane: Image) -> None:
    on_bus, on_zidane = estimator.estimate([bus, zidane])
    assert len(on_bus) >= 3  # three whole people and one cut off by the border
    assert len(on_zidane) >= 2
    head = on_bus.keypoints[:, 0, 1]
    ankles = on_bus.keypoints[:, 15:, 1].mean(axis=1)
    upright = on_bus.boxes[:, 3] - on_bus.boxes[:, 1] > 400
    assert (head < ankles)[upright].all()
    assert np.isfinite(on_zidane.keypoints).all()
    assert ((on_bus.keypoint_scores >= 0) & (on_bus.keypoint_scores <= 1)).all()
    assert on_bus.visibility is not None
    assert ((on_bus.visibility >= on_bus.keypoint_scores) & (on_bus.visibility <= 1)).all()
    assert (on_bus.visibility - on_bus.keypoint_scores).max() > 0.1


def test_options_change_little_and_only_what_they_should(
    estimator: PoseEstimator, bus: Image
) -> None:
    boxes = [[[48, 398, 243, 904]]]
    [plain] = estimator.estimate([bus], boxes)
    [flipped] = estimator.estimate([bus], boxes, flip_test=True)
    distance = np.linalg.norm(plain.keypoints - flipped.keypoints, axis=2)
    assert 0 < np.median(distance) < 30
    with pytest.raises(ValueError, match="cycles: expected 0, got 2"):
        estimator.estimate([bus], boxes, cycles=2)


@pytest.mark.parametrize(
    ("name", "precision"),
    [("openvino", "fp32"), ("openvino", "auto"), ("torch", "fp16"), ("torch", "bf16")],
)
def test_backends_agree_on_real_people(
    estimator: PoseEstimator, bus: Image, name: str, precision: str
) -> None:
    """In pixels of the 192x256 crop, against the fp32 reference."""
    [people] = estimator.estimate([bus])
    student = load_student()
    reference = PoseEstimator(TorchBackend(student, "cpu", "fp32"), scores=student.scores)
    [expected] = reference.estimate([bus], [people.boxes])
    regions = regions_from_boxes(people.boxes, student.config.view)
    backend = make_backend(load_student(), name, "cpu", precision)
    [poses] = PoseEstimator(backend).estimate([bus], [people.boxes])
    apart = 4 * np.abs(
        image_to_heatmap(poses.keypoints, regions) - image_to_heatmap(expected.keypoints, regions)
    )
    # Two peaks of equal height may change places at low precision; joints that are more likely
    # right than not may not move.
    sure = expected.keypoint_scores > 0.5
    assert sure.sum() > 10
    if backend.precision == "bf16":
        # Eight bits: a hidden joint with two peaks of nearly equal height may take the other.
        assert np.median(apart[sure]) < 0.5
        assert np.quantile(apart[sure], 0.8) < 3.0
    else:
        assert np.median(apart[sure]) < 0.1
        assert np.quantile(apart[sure], 0.95) < 0.5
        assert apart[sure].max() < 2  # half a pixel of the heatmap: a broad peak in fp16


def test_unknown_backends_and_devices_are_refused() -> None:
    student = load_student()
    with pytest.raises(ValueError, match="backend 'tensorrt'"):
        make_backend(student, "tensorrt")
    with pytest.raises(ValueError, match="device 'tpu'"):
        make_backend(student, device="tpu")
    with pytest.raises(ValueError, match="openvino backend has fp32, bf16"):
        make_backend(student, "openvino", precision="int4")
    with pytest.raises(ValueError, match="torch backend has"):
        make_backend(student, "torch", "cpu", "int4")
