"""Who is who over time."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import requires

import numpy as np
import pytest

from sdpose_core import PoseEstimator
from sdpose_core.io.video import VideoReader
from sdpose_core.skeleton import COCO17, find_skeleton
from sdpose_core.tracking import PeopleTracker, TrackingConfig
from sdpose_core.tracking.association import PoseByteTracker
from sdpose_core.tracking.following import Following, boxes_by_joints
from sdpose_core.types import Poses
from tests.tracking.scenes import PlainIoU, scene, switches, tracked_by
from tests.tracking.walkers import Frame, Walker, walk
from tools.lock import ROOT

OURS = tracked_by(TrackingConfig().pose_weight)
APART = [Walker(110, 10, 200, 400), Walker(320, 0, 180, 380, 0.3), Walker(530, -10, 220, 420, 0.6)]


def _frames(walkers: list[Walker], fps: float = 30.0, seconds: float = 4.0) -> list[Frame]:
    return list(walk(walkers, np.random.default_rng(1), fps=fps, seconds=seconds))


def _ids(poses: Poses) -> list[int]:
    assert poses.ids is not None
    return [int(one) for one in poses.ids]


def test_people_of_the_clip_keep_their_ids() -> None:
    """The camera pans past a man, a woman on his left hand and, at the end, a third person."""
    estimator, tracker = PoseEstimator.from_pretrained(), PeopleTracker()
    with VideoReader(ROOT / "docs" / "images" / "pan.mp4") as video:
        answers = [
            tracker.update(estimator.estimate([frame.image])[0], frame.time_s) for frame in video
        ]
    woman, man = _ids(answers[0])
    for poses in answers:
        by_place = np.argsort(poses.boxes[:, 0])
        assert [_ids(poses)[place] for place in by_place] in (
            [man, woman],
            [woman],
            [woman, 3],
            [man, woman, 3],
        )
    assert tracker.ids_given <= 3


def test_every_id_is_stable_over_300_frames_and_people_keep_their_order() -> None:
    tracker = PeopleTracker(TrackingConfig(smoothing=None))
    frames = _frames(APART, seconds=10)
    assert len(frames) == 300
    for frame in frames:
        assert _ids(tracker.update(frame.poses, frame.time_s)) == [1, 2, 3]
    assert switches(frames, OURS()) == 0


def test_three_people_cross_without_a_switch_where_plain_overlap_has_some() -> None:
    scenes = [scene(seed, 30.0, 0.01) for seed in range(12)]
    plain = [switches(frames, PlainIoU()) for frames in scenes]
    ours = [switches(frames, OURS()) for frames in scenes]
    assert any(before > 0 and after == 0 for before, after in zip(plain, ours, strict=True))
    assert sum(ours) < sum(plain) / 2


def test_poses_tell_people_apart_where_boxes_do_not() -> None:
    scenes = [scene(seed, 10.0, 0.03) for seed in range(12)]
    by_boxes, by_poses = (
        sum(switches(frames, make()) for frames in scenes) for make in (tracked_by(0.0), OURS)
    )
    assert by_poses < by_boxes


def test_who_was_hidden_by_another_has_the_same_id_again() -> None:
    """Expected just where the other is; ByteTrack alone takes the two for one, and drops one."""
    for seed in (2, 13, 16, 22, 33, 39):
        assert switches(scene(seed, 30.0, 0.01), OURS()) == 0, seed


def test_a_person_walks_on_with_the_trunk_and_not_with_the_swing_of_the_legs() -> None:
    """Hidden for 0.6 s, expected where a person at that speed is by then."""
    tracker = PoseByteTracker()
    walker = Walker(100, 120, 200, 400)
    for frame in _frames([walker], seconds=2.0):
        tracker.assign(frame.poses, 60)
    for _ in range(18):
        tracker.assign(Poses.empty(), 60)
    [track] = tracker.lost_stracks
    track.expect(tracker.frame_id)
    hips = walker.joints((60 + 18 - 1) / 30)[[11, 12]].mean(axis=0)
    assert np.abs(track.joints[[11, 12], :2].mean(axis=0) - hips).max() < 12


def test_people_of_another_student_are_new_ones() -> None:
    """A reload in the middle of a stream: 17 joints cannot be compared with 14."""
    tracker = PeopleTracker()
    crowdpose = find_skeleton("crowdpose14")
    order = [place for place in COCO17.places(crowdpose.keypoints) if place is not None] + [0, 0]
    found = []
    for number, frame in enumerate(_frames(APART[:1], seconds=0.2)):
        poses = frame.poses
        if number >= 3:
            points, scores = poses.keypoints[:, order], poses.keypoint_scores[:, order]
            poses = Poses(points, scores, poses.boxes, poses.scores, skeleton=crowdpose)
        found.append(_ids(tracker.update(poses, frame.time_s)))
    assert found == [[1], [1], [1], [], [2], [2]]


def test_an_id_survives_a_gap_within_the_grace_time_and_not_beyond() -> None:
    frames = _frames([Walker(100, 60, 200, 400)], fps=10.0, seconds=6.0)
    for gap_s, kept in ((1.0, True), (3.5, False)):
        tracker = PeopleTracker(TrackingConfig(grace_s=2.0))
        before, after = 0, 0
        for frame in frames:
            hidden = 1.0 <= frame.time_s < 1.0 + gap_s
            poses = tracker.update(Poses.empty() if hidden else frame.poses, frame.time_s)
            for one in _ids(poses):
                if one and frame.time_s < 1:
                    before = one
                elif one:
                    after = one
        assert (before == after) is kept, gap_s
        assert before == 1
        assert after > 0


def test_a_flicker_gets_no_id() -> None:
    tracker = PeopleTracker()
    [first, *rest] = _frames([Walker(100, 0, 200, 400)])
    tracker.update(first.poses, first.time_s)
    stranger = replace(first.poses, boxes=first.poses.boxes + 300, keypoints=first.poses.keypoints)
    both = Poses(
        np.concatenate([rest[0].poses.keypoints, stranger.keypoints + 300]),
        np.concatenate([rest[0].poses.keypoint_scores, stranger.keypoint_scores]),
        np.concatenate([rest[0].poses.boxes, stranger.boxes]),
        np.concatenate([rest[0].poses.scores, stranger.scores]),
    )
    assert _ids(tracker.update(both, rest[0].time_s)) == [1]
    assert _ids(tracker.update(rest[1].poses, rest[1].time_s)) == [1]
    assert tracker.ids_given == 1


def test_no_people_and_numbers_that_are_none() -> None:
    tracker = PeopleTracker()
    assert _ids(tracker.update(Poses.empty(), 0.0)) == []
    broken = _frames(APART)[0].poses
    broken.keypoints[0, 3, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        tracker.update(broken, 0.1)
    assert _ids(tracker.update(_frames(APART)[0].poses, 0.2)) == []


def test_time_that_stands_still_or_goes_back_does_no_harm() -> None:
    tracker = PeopleTracker()
    for frame, time_s in zip(_frames(APART), (0.0, 0.1, 0.1, 0.05, 0.2), strict=False):
        poses = tracker.update(frame.poses, time_s)
        assert poses.finite
        assert _ids(poses) == [1, 2, 3]


def test_memory_does_not_grow_with_the_people_who_came_by() -> None:
    tracker = PeopleTracker(TrackingConfig(grace_s=0.2))
    number = 0
    for turn in range(50):
        for frame in _frames([Walker(50 + 10 * turn, 0, 200, 300 + turn)], fps=10.0, seconds=0.5):
            tracker.update(frame.poses, number / 10)
            number += 1
        for _ in range(5):
            tracker.update(Poses.empty(), number / 10)
            number += 1
    assert tracker.ids_given == 50
    assert len(tracker._filters) <= 1
    assert len(tracker._tracker.lost_stracks) <= 1


def test_boxes_follow_the_joints_of_a_frame_without_detection() -> None:
    for before, after in zip(_frames(APART)[:-1], _frames(APART)[1:], strict=True):
        expected = {
            int(w): box for w, box in zip(before.who, boxes_by_joints(before.poses), strict=True)
        }
        for person, box in zip(after.who, after.poses.boxes, strict=True):
            low = np.maximum(expected[int(person)][:2], box[:2])
            high = np.minimum(expected[int(person)][2:], box[2:])
            assert np.prod(high - low) > 0.8 * np.prod(box[2:] - box[:2])


def test_with_few_certain_joints_the_box_stays() -> None:
    poses = _frames(APART)[0].poses
    poses.keypoint_scores[:, 5:] = 0.1
    assert (boxes_by_joints(poses) == poses.boxes).all()


def test_what_the_tracker_would_install_itself_is_declared() -> None:
    assert any(name.startswith("lap") for name in requires("sdpose-service") or [])


def test_a_followed_person_stays_in_the_image_and_is_less_sure() -> None:
    """Boxes end at the edge, and the score is the lower one of the detection and the joints."""
    [frame] = _frames([Walker(625, 60, 200, 400)], seconds=0.03)
    following = Following(10)
    following.boxes(0.0)
    following.detected(frame.poses, (640, 480), 20.0)
    boxes = following.boxes(0.03)
    assert boxes is not None
    assert boxes[0, 2] == 640
    weak = replace(frame.poses, scores=np.array([0.3], np.float32))
    poses = following.followed(weak, (640, 480), 5.0)
    assert poses is not None
    assert poses.scores == pytest.approx([0.3])
    sure = replace(frame.poses, scores=np.array([1.0], np.float32))
    poses = following.followed(sure, (640, 480), 5.0)
    assert poses is not None
    assert poses.scores == pytest.approx([0.3])
