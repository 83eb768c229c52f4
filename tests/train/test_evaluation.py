"""Evaluation on a drawn set: pycocotools' numbers, pairing, suppression."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sdpose_core.data.coco import CocoImage, load_coco
from sdpose_core.data.coco_file import read_coco
from sdpose_core.estimator import PoseEstimator
from sdpose_core.evaluate.breakdown import by_joint, by_size, score_people
from sdpose_core.evaluate.coco_metrics import (
    NAMES,
    average_precision,
    coco_numbers,
    image_matches,
)
from sdpose_core.evaluate.detection import read_annotated, tall_recall
from sdpose_core.evaluate.report import evaluate, write_report
from sdpose_core.evaluate.results import (
    ImagePoses,
    coco_results,
    read_boxes,
    run,
)
from sdpose_core.evaluate.slices import area_under_curve, copies
from sdpose_core.evaluate.worst import draw_worst
from sdpose_core.types import Detections, Poses
from sdpose_core.vision.heatmaps import MAX_REFINEMENT
from tests.train.people import changing, coco_folder, constant_student

Change = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]


def coco_set(folder: Path, images: int = 4) -> tuple[Path, list[CocoImage]]:
    """The file of drawn people, and what is read from it."""
    annotations, pictures = coco_folder(folder, images)
    return annotations, load_coco(annotations, pictures)


def boxes_of(image: CocoImage) -> NDArray[np.float32]:
    return np.stack([p.box for p in image.people]).astype(np.float32)


def answer(
    change: Change, score: Callable[[np.random.Generator], float] = lambda _: 0.9
) -> Callable[[CocoImage, NDArray[np.float32] | None], Poses]:
    """A source that knows the annotation and spoils it."""

    def ask(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        rng = np.random.default_rng(image.image_id)
        people = image.people
        return Poses(
            keypoints=np.stack([change(p.keypoints[:, :2], rng) for p in people]).astype(
                np.float32
            ),
            keypoint_scores=np.array([[score(rng)] * 17 for _ in people], np.float32),
            boxes=boxes_of(image) if boxes is None else boxes,
            scores=np.ones(len(people), np.float32),
        )

    return ask


def exact(keypoints: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return keypoints


def noisy(keypoints: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return np.asarray(keypoints + rng.normal(0, rng.uniform(1, 20), (17, 2)), np.float32)


def test_the_truth_scores_one(tmp_path: Path) -> None:
    annotations, images = coco_set(tmp_path)
    result, scored = evaluate(
        "truth", images, annotations, answer(exact), given_boxes=True, bootstrap=20
    )
    assert (result.images, result.people) == (4, 8)
    assert result.coco["AP"] == pytest.approx(1)
    assert result.coco["ARl"] == pytest.approx(1)
    assert result.coco["APm"] == -1  # nobody is of medium size
    assert result.interval == pytest.approx((1, 1))
    assert result.mean_oks == pytest.approx(1)
    assert result.joints["nose"]["within_0.1"] == 1
    assert result.sizes["large"] == {"people": 8, "oks": pytest.approx(1), "oks>0.5": 1}
    assert len(scored) == 8
    write_report(tmp_path / "out" / "report.json", [result])
    assert json.loads((tmp_path / "out" / "report.json").read_text())[0]["coco"]["AP"] == 1


def test_numbers_are_those_of_pycocotools(tmp_path: Path) -> None:
    """The ten numbers, and our own AP that the bootstrap uses, against a plain COCOeval."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, images = coco_set(tmp_path, 12)
    found = run(images, answer(noisy, lambda rng: rng.uniform(0.3, 1)), given_boxes=True)
    results = coco_results(found)
    numbers = coco_numbers(annotations, results, [i.image_id for i in images], bootstrap=200)
    truth = COCO(str(annotations))
    plain = COCOeval(truth, truth.loadRes([dict(r) for r in results]), "keypoints")
    plain.evaluate()
    plain.accumulate()
    plain.summarize()
    assert 0.05 < plain.stats[0] < 0.95
    assert [numbers.values[n] for n in NAMES] == pytest.approx(list(plain.stats))
    assert average_precision(image_matches(plain)) == pytest.approx(plain.stats[0], abs=1e-9)
    assert numbers.interval is not None
    low, high = numbers.interval
    assert low < plain.stats[0] < high


def test_a_source_must_answer_every_box(tmp_path: Path) -> None:
    _, images = coco_set(tmp_path, 1)
    with pytest.raises(ValueError, match="got 0 poses for 2 boxes"):
        run(images, lambda *_: Poses.empty(), given_boxes=True)
    known = {images[0].image_id: Detections(boxes_of(images[0]), np.ones(2, np.float32))}
    with pytest.raises(ValueError, match="got 0 poses for 2 boxes"):
        run(images, lambda *_: Poses.empty(), given_boxes=False, boxes=known)


def test_bootstrap_repeats_with_its_seed(tmp_path: Path) -> None:
    annotations, images = coco_set(tmp_path, 6)
    results = coco_results(run(images, answer(noisy), given_boxes=True))
    ids = [i.image_id for i in images]
    first, second = (coco_numbers(annotations, results, ids, bootstrap=50) for _ in range(2))
    assert first == second
    assert coco_numbers(annotations, results, ids, bootstrap=0).interval is None


def test_nothing_found_scores_nothing(tmp_path: Path) -> None:
    annotations, images = coco_set(tmp_path, 2)
    result, scored = evaluate(
        "blind", images, annotations, lambda *_: Poses.empty(), given_boxes=False
    )
    assert result.coco["AP"] == 0
    assert result.mean_oks == 0
    assert all(s.keypoints is None for s in scored)


def test_people_without_joints_are_ignored_and_not_their_image(tmp_path: Path) -> None:
    """The published protocol: whoever is found there is neither right nor wrong."""
    annotations, folder = coco_folder(tmp_path, images=3)
    with changing(annotations) as content:
        content["annotations"][0] |= {"keypoints": [0] * 51, "num_keypoints": 0}
    images = load_coco(annotations, folder)
    whole, folder = coco_folder(tmp_path / "whole", images=3)
    everyone = answer(exact)
    known = {image.image_id: image for image in load_coco(whole, folder)}

    def source(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        return everyone(known[image.image_id], None)

    result, _ = evaluate("all", images, annotations, source, given_boxes=False, bootstrap=0)
    assert (result.images, result.people) == (3, 5)
    assert result.coco["AP"] == pytest.approx(1)


def test_boxes_of_a_file_bring_their_scores(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path, images=2)
    first, second = load_coco(annotations, folder)
    rows = [
        {
            "image_id": first.image_id,
            "category_id": category,
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": score,
        }
        for (x1, y1, x2, y2), score, category in zip(
            boxes_of(first), (0.3, 0.8), (1, 1), strict=True
        )
    ]
    rows.append({"image_id": first.image_id, "category_id": 2, "bbox": [0, 0, 5, 5], "score": 1})
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(rows))
    boxes = read_boxes(path, read_coco(annotations))
    np.testing.assert_allclose(boxes[first.image_id].scores, [0.8, 0.3])
    found = run([first, second], answer(exact), given_boxes=False, boxes=boxes)
    assert [len(f.poses) for f in found] == [2, 0]
    np.testing.assert_allclose(found[0].poses.scores, [0.8, 0.3])
    assert read_boxes(path, read_coco(annotations), minimum=0.5)[first.image_id].boxes.shape == (
        1,
        4,
    )
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match="COCO detections"):
        read_boxes(path, read_coco(annotations))
    path.write_text("[")
    with pytest.raises(ValueError, match=r"boxes\.json: not a file of COCO detections"):
        read_boxes(path, read_coco(annotations))


def test_copies_of_boxes_from_a_file_go(tmp_path: Path) -> None:
    """The published protocol: OKS suppression at 0.9 of poses whose boxes are a detector's."""
    annotations, folder = coco_folder(tmp_path, images=1)
    (image,) = load_coco(annotations, folder)
    one = answer(exact)(image, None)

    def twice(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        assert boxes is not None
        points = np.concatenate([one.keypoints, one.keypoints + 0.5])
        joints = np.concatenate([one.keypoint_scores, one.keypoint_scores * 0.9])
        return Poses(points, joints, boxes, joints.mean(axis=1))

    known = {image.image_id: Detections(np.concatenate([one.boxes] * 2), np.ones(4, np.float32))}
    found = run([image], twice, given_boxes=False, boxes=known)
    assert [r["score"] for r in coco_results(found)] == pytest.approx([0.9, 0.9])
    assert copies([ImagePoses(image, twice(image, known[1].boxes), False)]) == 0.5
    assert copies(found) == 0


def test_slices_say_who_is_missed_and_where(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path, images=4)
    with changing(annotations) as content:
        for person in content["annotations"][1::2]:  # the right ones: overlapped, of four joints
            person["bbox"][0] -= 150
            person["keypoints"][12:] = [0] * 39
            person["num_keypoints"] = 4
    images = load_coco(annotations, folder)

    def left_only(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        return answer(exact)(image, None).select(np.array([0]))

    result, _ = evaluate("left", images, annotations, left_only, given_boxes=False, bootstrap=0)
    assert list(result.slices) == ["all", "large", "overlapped", "1-4 joints", "13-17 joints"]
    found, missing = result.slices["13-17 joints"], result.slices["1-4 joints"]
    assert (found.people, found.missed, found.misplaced) == (4, 0, 0)
    assert found.ap == pytest.approx(1)
    assert (missing.people, missing.missed, missing.ap) == (4, 1, 0)
    assert result.slices["all"].missed == 0.5


def test_loose_boxes_and_false_positives_are_counted(tmp_path: Path) -> None:
    """Of three: by a box 1.6 times as wide, without labelled joints, of no person."""
    annotations, folder = coco_folder(tmp_path, images=1)
    with changing(annotations) as content:
        content["annotations"][1].update(num_keypoints=0, keypoints=[0] * 51)
    images = load_coco(annotations, folder)
    (image,), (bare,) = images, images[0].others
    left, _, right, _ = image.people[0].box
    wide = image.people[0].box + np.array([0, 0, 0.6 * (right - left), 0], np.float32)

    def three(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        poses = answer(exact)(image, None)
        points = np.concatenate([poses.keypoints, poses.keypoints + 900, poses.keypoints - 900])
        return Poses(
            points,
            np.repeat(poses.keypoint_scores, 3, axis=0),
            np.stack([wide, bare, wide - 900]),
            np.array([0.9, 0.8, 0.7], np.float32),
        )

    result, _ = evaluate("three", images, annotations, three, given_boxes=False, bootstrap=0)
    assert result.slices["all"].loose == 1
    assert result.false_positives == pytest.approx(1 / 3)
    assert result.repeats == 0
    given, _ = evaluate("given", images, annotations, answer(exact), given_boxes=True, bootstrap=0)
    assert (given.slices["all"].loose, given.false_positives) == (0, 0)


def test_second_poses_of_a_person_are_counted(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path, images=2)

    def again(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        poses = answer(exact)(image, None)
        return poses.select(np.array([0, 0, 1]))

    images = load_coco(annotations, folder)
    result, _ = evaluate("again", images, annotations, again, given_boxes=False, bootstrap=0)
    assert result.repeats == pytest.approx(1 / 3)


def test_rank_is_what_better_scores_would_gain(tmp_path: Path) -> None:
    """The bad pose of each image is the sure one."""
    annotations, folder = coco_folder(tmp_path, images=4)

    def swapped(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        poses = answer(exact)(image, None)
        points = poses.keypoints.copy()
        points[0] += 8
        return replace(poses, keypoints=points, scores=np.array([0.9, 0.5], np.float32))

    images = load_coco(annotations, folder)
    result, _ = evaluate("swapped", images, annotations, swapped, given_boxes=False, bootstrap=0)
    assert result.slices["all"].rank > 0.05
    right, _ = evaluate("right", images, annotations, answer(exact), given_boxes=True, bootstrap=0)
    assert right.slices["all"].rank == pytest.approx(0)


def test_true_scores_tell_labelled_joints(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path, images=4)

    def telling(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        poses = answer(exact)(image, boxes)
        flags = np.stack([one.keypoints[:, 2] for one in image.people])
        scores = np.where(flags > 0, 0.95, 0.02).astype(np.float32)
        visibility = np.where(flags > 0, 0.75, 0.35).astype(np.float32)
        visibility[0, 0] = 0.35  # the nose, which is labelled
        return replace(poses, keypoint_scores=scores, visibility=visibility)

    images = load_coco(annotations, folder)
    result, _ = evaluate("telling", images, annotations, telling, given_boxes=True, bootstrap=0)
    assert result.scores.auroc == 1
    assert result.scores.calibration_error == pytest.approx(0.05 * 16 / 17 + 0.02 / 17, abs=1e-3)
    assert result.visibility is not None
    # Two people in each of four images, 16 of 17 joints labelled; of four the nose is unsure.
    assert result.visibility.bins == [
        (8 + 4, pytest.approx(0.35), pytest.approx(4 / 12)),
        (8 * 16 - 4, pytest.approx(0.75), 1),
    ]
    assert result.visibility.auroc == pytest.approx((124 + 4 / 2) / 128)
    error = (12 * abs(0.35 - 4 / 12) + 124 * 0.25) / 136
    assert result.visibility.calibration_error == pytest.approx(error, abs=1e-6)
    blind, _ = evaluate("blind", images, annotations, answer(exact), given_boxes=True, bootstrap=0)
    assert blind.visibility is None
    assert result.halves == pytest.approx((1, 1))
    assert area_under_curve(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == 0.875


def test_detected_poses_are_paired_by_similarity(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path, images=1)
    (image,) = load_coco(annotations, folder)
    poses = answer(exact)(image, None)
    swapped = Poses(poses.keypoints[::-1].copy(), poses.keypoint_scores, poses.boxes, poses.scores)
    detected = score_people([ImagePoses(image, swapped, False)])
    assert [s.oks for s in detected] == pytest.approx([1, 1])
    given = score_people([ImagePoses(image, swapped, True)])
    assert max(s.oks for s in given) < 0.1


def test_breakdown_finds_the_bad_joint(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path)

    def bad_wrist(keypoints: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        moved = keypoints.copy()
        moved[9] += 100
        return moved

    scored = score_people(run(load_coco(annotations, folder), answer(bad_wrist), given_boxes=True))
    joints = by_joint(scored)
    assert joints["left_wrist"]["oks"] < 0.05
    assert joints["left_wrist"]["within_0.1"] == 0
    assert all(v["oks"] == pytest.approx(1) for k, v in joints.items() if k != "left_wrist")
    assert sum(v["labelled"] for v in joints.values()) == 8 * 16
    assert by_size(scored)["small"]["people"] == 0


def test_worst_cases_come_first(tmp_path: Path) -> None:
    annotations, folder = coco_folder(tmp_path)
    scored = score_people(run(load_coco(annotations, folder), answer(noisy), given_boxes=True))
    paths = draw_worst(scored, tmp_path / "worst", count=3)
    lowest = sorted(s.oks for s in scored)[:3]
    assert [p.name.split("-")[1] for p in paths] == [f"oks{v:.2f}" for v in lowest]
    assert all(p.stat().st_size > 1000 for p in paths)


def test_published_scores_are_the_peaks_themselves(tmp_path: Path) -> None:
    """A student of squared error may answer with peaks above 1: the ranking keeps them apart."""
    path = constant_student(tmp_path / "loud.safetensors", 20, 30, height=1.25)
    image, boxes = np.zeros((80, 60, 3), np.uint8), np.array([[5, 5, 55, 75]], np.float32)
    scores = []
    for bound in (None, MAX_REFINEMENT):
        estimator = PoseEstimator.from_pretrained(
            path, "none", "cpu", backend="torch", precision="fp32", max_refinement=bound
        )
        scores.append(estimator.estimate([image], [boxes])[0].keypoint_scores)
    np.testing.assert_allclose(scores[0], 1.25, rtol=1e-3)
    np.testing.assert_array_equal(scores[1], np.ones((1, 17), np.float32))


def test_recall_counts_people_by_their_height(tmp_path: Path) -> None:
    """A wide one of 96 pixels is not taller than 96; a slim one of 97 is, whatever its area."""
    boxes = [(0, 0, 200, 96), (210, 0, 20, 97), (240, 0, 100, 200)]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": list(b), "area": 1.0}
        for i, b in enumerate(boxes, start=1)
    ]
    path = tmp_path / "boxes.json"
    listed = [{"id": 1, "file_name": "a.png", "width": 400, "height": 300}]
    people = [{"id": 1, "name": "person"}]
    content = {"images": listed, "annotations": annotations, "categories": people}
    path.write_text(json.dumps(content))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((300, 400, 3), np.uint8))
    annotated = read_annotated(path, tmp_path)
    found = np.array([[210, 0, 230, 97], [240, 0, 340, 90]], np.float32)
    sure = {1: Detections(found, np.array([0.9, 0.8], np.float32))}
    assert tall_recall(sure, annotated) == 0.5
    unsure = {1: Detections(found, np.array([0.2, 0.1], np.float32))}
    assert tall_recall(unsure, annotated) == 0
