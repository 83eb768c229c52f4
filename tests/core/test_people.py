"""Who of the posed boxes is answered: joints beyond the image, copies, doubtful boxes, scores."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sdpose_core import PoseEstimator
from sdpose_core.checkpoints import load_student
from sdpose_core.detector.load import load_detector
from sdpose_core.skeleton import COCO17
from sdpose_core.types import PUBLISHED_VIEW, Detections, Floats, Poses
from sdpose_core.vision.image_files import ImageLimits, decode_image
from sdpose_core.vision.oks import oks_matrix
from sdpose_core.vision.people import (
    each_once,
    people_of,
    persons,
    touching,
    without_outside,
    worth_posing,
)
from sdpose_core.vision.ranking import PersonRanking, mean_scores, pose_features
from tests.pictures import photograph
from tests.train.people import FIGURE
from tools.lock import ROOT
from tools.pictures import EXAMPLE, IMAGES, PEOPLE, answers, overlay, sheet

SIZE = (640, 480)


def standing(*people: tuple[float, float, float], joints: float = 0.8) -> Poses:
    """People 80 pixels wide and 200 high: left edge, top edge and box score of each."""
    boxes = np.array([(x, y, x + 80, y + 200) for x, y, _ in people], np.float32)
    points = np.stack([FIGURE * (80, 200) + (x, y) for x, y, _ in people])
    return Poses(
        points.astype(np.float32),
        np.full((len(people), 17), joints, np.float32),
        boxes,
        np.array([score for *_, score in people], np.float32),
    )


def answered(poses: Poses, **options: object) -> Poses:
    return people_of(poses, SIZE, mean_scores, **options)  # type: ignore[arg-type]


def test_joints_beyond_the_image_score_next_to_nothing() -> None:
    poses = standing((600, 100, 0.9), (100, 300, 0.9), (-30, 100, 0.9), (200, 100, 0.9))
    poses = replace(poses, visibility=np.full((4, 17), 0.9, np.float32))
    inside = without_outside(poses, SIZE)
    x, y = inside.keypoints[..., 0], inside.keypoints[..., 1]
    beyond = (x < -0.5) | (x > 639.5) | (y < -0.5) | (y > 479.5)
    assert beyond.any(axis=1).tolist() == [True, True, True, False]
    assert inside.keypoint_scores[beyond].max() < 0.05
    assert (inside.keypoint_scores[~beyond] == np.float32(0.8)).all()
    assert inside.visibility is not None
    assert inside.visibility[beyond].max() < 0.05
    assert (inside.visibility[~beyond] == np.float32(0.9)).all()


def test_poses_of_one_person_become_one() -> None:
    """Its joints are the mean of both, nearer to those of the better box."""
    poses = standing((100, 100, 0.4), (106, 100, 0.8))
    found = answered(poses)
    assert found.boxes.tolist() == [[106, 100, 186, 300]]
    shift = found.keypoints[0] - poses.keypoints[1]
    share = 0.4**0.3 / (0.4**0.3 + 0.8**0.3)
    np.testing.assert_allclose(shift, np.tile([-6 * share, 0], (17, 1)), atol=1e-3)


def test_guesses_of_hidden_joints_make_no_second_person() -> None:
    """Two looks at somebody without a face, which each guesses in another place."""
    poses = standing((100, 100, 0.4), (106, 100, 0.8))
    poses.keypoints[0, :7] += 60
    assert len(answered(poses)) == 2
    poses.keypoint_scores[:, :7] = 0.05
    assert len(answered(poses)) == 1


def test_a_joint_in_another_place_does_not_move_the_better_one() -> None:
    poses = standing((100, 100, 0.8), (100, 100, 0.4))
    poses.keypoints[1, 9] += 90
    found = answered(poses)
    assert len(found) == 1
    np.testing.assert_allclose(found.keypoints[0], poses.keypoints[0], atol=1e-3)


def test_people_beside_each_other_stay() -> None:
    found = answered(standing((100, 100, 0.9), (140, 100, 0.8), (300, 100, 0.7)))
    assert found.scores == pytest.approx([0.72, 0.64, 0.56])


def test_equal_boxes_of_a_caller_get_one_pose_each() -> None:
    poses = standing((100, 100, 1), (100, 100, 1), (120, 100, 1), joints=0.1)
    found = answered(poses, given=True)
    assert len(found) == 3
    np.testing.assert_array_equal(found.boxes, poses.boxes)


def test_nobody_goes_where_suppression_is_off() -> None:
    poses = standing((100, 100, 0.9), (101, 100, 0.5))
    assert len(answered(poses, suppress=False)) == 2
    assert len(answered(poses)) == 1


def test_a_doubtful_box_counts_only_with_joints_of_its_own() -> None:
    """It has the sure man's head and shoulders, and the rest where nobody stands."""
    poses = standing((100, 100, 0.9), (100, 100, 0.15))
    poses.keypoints[1, 9:, 1] += 120
    assert oks_matrix(*pair(poses), COCO17.sigmas)[0, 1] < 0.6  # by itself no copy
    found = answered(poses)
    assert len(found) == 2
    assert (found.keypoint_scores[1, :9] == 0).all()
    assert (found.keypoint_scores[1, 9:] > 0.5).all()
    poses.keypoint_scores[1, 9:] = 0.25  # of its own it has no likely joint
    assert len(answered(poses)) == 1


def test_who_shares_most_joints_with_a_better_one_loses_them() -> None:
    poses = standing((100, 100, 0.9), (100, 100, 0.6))
    poses.keypoints[1, 10:, 0] += 150
    poses = replace(poses, visibility=np.full((2, 17), 0.9, np.float32))
    found = answered(poses)
    assert found.visibility is not None
    assert (found.visibility == np.float32(0.9)).all()  # the joint is there, in another place
    assert (found.keypoint_scores[1, :10] == 0).all()
    assert (found.keypoint_scores[1, 10:] > 0.5).all()
    poses.keypoints[1, 5:10] += 200  # now only the face is common: too little to lose
    assert (answered(poses).keypoint_scores[1] > 0.5).all()


def test_a_person_needs_a_likely_joint_unless_a_score_is_named() -> None:
    poses = standing((100, 100, 0.9), joints=0.25)
    assert len(answered(poses)) == 0
    assert len(answered(poses, min_score=0.2)) == 1
    assert len(answered(poses, min_score=0.3)) == 0


def test_the_order_is_that_of_the_scores() -> None:
    poses = standing((300, 100, 0.5), (100, 100, 0.9), (500, 100, 0.8))
    poses.keypoint_scores[1] = 0.4  # a sure box, but 0.36 in all
    assert answered(poses).boxes[:, 0].tolist() == [500, 300, 100]


def test_a_box_needs_the_more_of_its_joints_the_less_sure_it_is() -> None:
    def remains(box: float, joints: float) -> bool:
        return len(answered(standing((100, 100, box), joints=joints))) == 1

    assert remains(0.25, 0.3)
    assert remains(0.15, 0.3)
    assert not remains(0.06, 0.45)
    assert remains(0.06, 0.46)


@pytest.mark.parametrize(
    ("side", "score", "other", "pixel", "posed"),
    [
        (20, 0.11, None, 1, True),
        (40, 0.09, None, 1, False),
        (40, 0.09, None, 2, True),  # 80 pixels of the whole image
        (50, 0.07, None, 1, True),
        (50, 0.05, None, 1, False),  # below all
        (50, 0.09, 8, 1, False),  # an overlap of 0.72 with a better one
        (50, 0.11, 8, 1, True),
        (50, 0.09, 25, 1, True),  # an overlap of a third
    ],
)
def test_who_is_posed(
    side: float, score: float, other: float | None, pixel: float, posed: bool
) -> None:
    boxes, scores = [[100, 100, 100 + side, 100 + side]], [score]
    if other is not None:
        boxes.append([100 + other, 100, 100 + other + side, 100 + side])
        scores.append(0.8)
    found = worth_posing(Detections(np.float32(boxes), np.float32(scores)), pixel=pixel)
    assert (np.float32(score) in found.scores) == posed
    assert len(found) == posed + (other is not None)


def test_a_maximum_leaves_room_for_copies() -> None:
    boxes = np.float32([[100 * n, 0, 100 * n + 90, 200] for n in range(5)])
    found = worth_posing(Detections(boxes, np.float32([0.3, 0.9, 0.1, 0.5, 0.7])), 2)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.5, 0.3])


def test_a_crowd_is_compared_only_where_boxes_touch() -> None:
    poses = standing(*((100.0 * n, 100.0 * m, 0.9) for n in range(20) for m in (0, 4, 8)))
    assert not len(touching(poses.boxes)[0])
    assert len(each_once(poses)) == 60
    row = standing(*((60.0 * n, 100.0, 0.9) for n in range(100)))
    assert len(touching(row.boxes)[0]) == 99
    assert persons(row).all()


def pair(poses: Poses) -> tuple[Floats, Floats, Floats, Floats]:
    areas = (poses.boxes[:, 2:] - poses.boxes[:, :2]).prod(axis=1)
    return poses.keypoints, areas, poses.keypoints, areas


def test_the_persons_score_is_the_heads_of_the_student() -> None:
    """In NumPy as in PyTorch, and higher for a pose that is seen well."""
    student = load_student()
    head = student.people
    assert head is not None
    weights = {name: value.numpy() for name, value in head.state_dict().items()}
    ranking = PersonRanking(PUBLISHED_VIEW, weights)
    poses = standing((100, 100, 1), (300, 100, 1), joints=0.9)
    poses.keypoint_scores[1] = np.linspace(0.9, 0.1, 17)
    middles = np.array([[[140, 200]], [[340, 200]]], np.float32)
    places = (poses.keypoints - middles) / np.array([187.5, 250], np.float32)
    expected = head(torch.from_numpy(pose_features(places, poses.keypoint_scores))).sigmoid()
    np.testing.assert_allclose(ranking.expected(poses), expected.numpy(), rtol=1e-4)
    seen, hidden = ranking(poses)
    assert 0 < hidden < seen < 1
    doubtful = ranking(replace(poses, scores=poses.scores * np.float32(0.2)))
    assert (doubtful < ranking(poses)).all()


def test_two_men_are_two_people() -> None:
    """On a photograph whose detections overlap; nothing beyond its edge is likely."""
    image = photograph("zidane.jpg")
    [poses] = PoseEstimator.from_pretrained().estimate([image])
    assert len(poses) == 2
    height, width = image.shape[:2]
    beyond = (poses.keypoints < 0) | (poses.keypoints > (width, height))
    assert (poses.keypoint_scores[beyond.any(axis=2)] < 0.1).all()
    assert (np.diff(poses.scores) <= 0).all()


def test_the_pictures_of_the_documents_show_todays_answer() -> None:
    """`python -m tools.pictures` draws them again; processors differ by a pixel or two."""
    estimator = PoseEstimator.from_pretrained(precision="fp32")
    answered = answers(estimator)
    shown = json.loads(PEOPLE.read_text())
    for path, (_, poses) in zip(IMAGES, answered, strict=True):
        people = shown[path.name]
        assert len(poses) == len(people), f"{path.name}: run python -m tools.pictures"
        places = np.array([[(k["x"], k["y"]) for k in one["keypoints"]] for one in people])
        scores = np.array([[k["score"] for k in one["keypoints"]] for one in people])
        away = np.linalg.norm(places - poses.keypoints, axis=2)[scores > 0.5]
        assert np.median(away) < 2, f"{path.name}: run python -m tools.pictures"
        assert np.quantile(away, 0.9) < 8, f"{path.name}: run python -m tools.pictures"
    first = shown["bus.jpg"][0]
    said = f'"box": {json.dumps(first["box"])}, "score": {first["score"]},'
    assert said in (ROOT / "README.md").read_text(), "the answer that README shows"
    drawn = {"overlay": overlay(answered[:2]), "sheet": sheet(answered, estimator.config.view)}
    for name, picture in drawn.items():
        kept = decode_image((PEOPLE.parent / f"{name}.jpg").read_bytes(), ImageLimits())
        assert kept.shape == picture.shape, f"{name}: run python -m tools.pictures"
        assert np.abs(kept.astype(int) - picture).mean() < 4, name


@pytest.mark.parametrize("precision", ["auto", "fp32", "int8"])
def test_two_people_are_found_on_the_example_of_the_page(precision: str) -> None:
    """In whatever numbers a processor computes, with the flip test and without."""
    detector = load_detector(precision=precision)
    precision = "auto" if precision == "int8" else precision
    estimator = PoseEstimator.from_pretrained(precision=precision)
    estimator.detector = detector
    for flip_test in (False, True):
        [poses] = estimator.estimate([EXAMPLE], flip_test=flip_test)
        assert len(poses) == 2
        assert poses.scores.min() > 0.6
