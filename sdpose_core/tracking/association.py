"""Which person of this frame is which of the frames before: ByteTrack with pose similarity.

Motion, the two rounds of association and the life of a track are ultralytics' ``BYTETracker``
(Zhang et al., ByteTrack, ECCV 2022). What is added is the measure of likeness: where two people
cross, their boxes overlap both tracks alike, while their joints do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks
from sdpose_core.skeleton import COCO17
from sdpose_core.types import NO_ID, Floats, Ids, Poses
from sdpose_core.vision.oks import oks_matrix

ultralytics_tasks()  # the import of ultralytics itself, without its side effects
from ultralytics.trackers.basetrack import TrackState  # noqa: E402
from ultralytics.trackers.byte_tracker import BYTETracker, STrack  # noqa: E402
from ultralytics.trackers.utils.matching import iou_distance, linear_assignment  # noqa: E402

__all__ = ["PoseByteTracker", "iou_distance", "linear_assignment"]

WIDER: Final = 2.0
"""COCO's sigmas describe how annotators differ; between two frames people also move."""

NEAR, FAR, SIZES = 0.3, 1.0, 1.5
"""Where hidden people are looked for: heights from the expected place, at first and when the id is
about to be dropped; and the ratio of heights that may be one person."""


SEEN = 0.3
"""Score from which shoulders and hips locate the trunk."""
STEADY = 0.1
"""Share of a frame's movement in the expected one."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The people of one frame in the form that ``BYTETracker`` reads: ``xywh`` by the centre."""

    xywh: Floats
    conf: Floats
    cls: Floats

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> _Seen:
        return _Seen(self.xywh[chosen], self.conf[chosen], self.cls[chosen])


class _Track(STrack):  # type: ignore[misc]
    """A track that remembers the joints of its last detection, (K, 3) x, y, score.

    They are expected to move on as the trunk did: the box swings with arms and legs.
    """

    def __init__(
        self, xywh: Floats, score: float, cls: float, joints: Floats, trunk: Sequence[int]
    ) -> None:
        super().__init__(xywh, score, cls)
        self._joints = joints
        self._trunk = _trunk(joints, xywh, trunk)
        self._speed: NDArray[Any] = np.zeros(2)
        self._steps = 0
        self._now = 0

    def expect(self, frame_id: int) -> None:
        """From now on the expected place is that in this frame."""
        self._now = frame_id

    @property
    def moved(self) -> NDArray[Any]:
        """How far (2,) pixels the person is expected to have moved since the last detection."""
        moved: NDArray[Any] = self._speed * max(0, self._now - self.frame_id)
        return moved

    @property
    def joints(self) -> Floats:
        """Their expected places in this frame."""
        joints = self._joints.copy()
        joints[:, :2] += self.moved
        return joints

    @property
    def trunk(self) -> NDArray[Any]:
        """Where its middle (2,) is expected now."""
        place: NDArray[Any] = self._trunk + self.moved
        return place

    def update(self, new_track: _Track, frame_id: int) -> None:
        self._follow(new_track, frame_id)
        super().update(new_track, frame_id)

    def re_activate(self, new_track: _Track, frame_id: int, new_id: bool = False) -> None:
        self._follow(new_track, frame_id)
        super().re_activate(new_track, frame_id, new_id)

    def _follow(self, new_track: _Track, frame_id: int) -> None:
        frames = max(1, frame_id - self.frame_id)
        speed = (new_track._trunk - self._trunk) / frames
        self._steps += 1
        # The mean of the first steps, then one that forgets.
        share = max(1 / self._steps, 1 - (1 - STEADY) ** frames)
        self._speed = self._speed + share * (speed - self._speed)
        self._joints, self._trunk = new_track._joints, new_track._trunk


def _trunk(joints: Floats, xywh: Floats, trunk: Sequence[int]) -> NDArray[Any]:
    """The middle of shoulders and hips (2,), or of the box if not all are seen."""
    parts = joints[list(trunk)]
    weights = np.where(parts[:, 2] >= SEEN, parts[:, 2], 0)
    if not trunk or np.count_nonzero(weights) < len(trunk):
        return np.asarray(xywh[:2], np.float64)
    middle: NDArray[Any] = np.average(parts[:, :2].astype(np.float64), axis=0, weights=weights)
    return middle


class PoseByteTracker(BYTETracker):  # type: ignore[misc]
    """``BYTETracker`` whose cost of a pair is one minus the mean of box IoU and pose similarity.

    Args:
        new_track_score: people below it keep a track going but begin none.
        low_score: people below it are ignored.
        pose_weight: share of the pose in the likeness, 0 for boxes alone.
    """

    def __init__(
        self, new_track_score: float = 0.25, low_score: float = 0.1, pose_weight: float = 0.7
    ) -> None:
        super().__init__(
            SimpleNamespace(
                track_high_thresh=new_track_score,
                track_low_thresh=low_score,
                new_track_thresh=new_track_score,
                track_buffer=30,
                match_thresh=0.8,
                fuse_score=False,
            )
        )
        self._pose_weight = pose_weight
        self._begun: list[_Track] = []
        self._skeleton = COCO17

    def assign(self, poses: Poses, lost_frames: int) -> Ids:
        """The id of each person, (N,); ``NO_ID`` before the second sighting.

        ``lost_frames`` is the number of frames for which a person that is not seen keeps the id.
        """
        self.max_frames_lost = lost_frames
        if len(poses) and poses.skeleton != self._skeleton:
            # Another student was loaded: joints cannot be compared, so its people are new ones.
            self._skeleton = poses.skeleton
            self.tracked_stracks.clear()
            self.lost_stracks.clear()
        corners = poses.boxes
        xywh = np.concatenate(
            [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1
        )
        joints = np.concatenate([poses.keypoints, poses.keypoint_scores[..., None]], axis=2)
        seen = _Seen(xywh, poses.scores, np.zeros_like(poses.scores))
        ids = np.full(len(poses), NO_ID, np.int64)
        known = [*self.tracked_stracks, *self.lost_stracks]
        for track in known:
            track.expect(self.frame_id + 1)
        self.update(seen, feats=joints)
        self._without_removal_of_duplicates(known)
        for track in self.tracked_stracks:
            if track.is_activated and track.frame_id == self.frame_id:
                ids[int(track.idx)] = track.track_id
        return ids

    def init_track(self, results: _Seen, img: Floats | None = None) -> list[STrack]:
        if img is None or not len(results):
            return []
        indexed = np.c_[results.xywh, np.arange(len(results))]
        return [
            _Track(xywh, score, kind, joints, self._skeleton.trunk)
            for xywh, score, kind, joints in zip(
                indexed, results.conf, results.cls, img, strict=True
            )
        ]

    def _post_first_association(
        self,
        strack_pool: list[_Track],
        detections: list[_Track],
        u_track: list[int],
        u_detection: list[int],
        activated: list[_Track],
        refind: list[_Track],
    ) -> tuple[list[int], list[int]]:
        """People who were hidden by others, when neither box nor pose fits any more.

        They are looked for near where they were headed, the further the longer they were hidden.
        """
        lost = [i for i in u_track if strack_pool[i].state == TrackState.Lost]
        if not lost or not len(u_detection):
            return u_track, u_detection
        tracks = [strack_pool[i] for i in lost]
        found = [detections[i] for i in u_detection]
        hidden = np.array([self.frame_id - track.frame_id for track in tracks]) / max(
            self.max_frames_lost, 1
        )
        reach = NEAR + (FAR - NEAR) * np.minimum(hidden, 1)
        costs = _offsets(tracks, found) / reach[:, None]
        matches, _, _ = linear_assignment(costs, thresh=1.0)
        self._apply_matches(matches, tracks, found, activated, refind)
        seen = {lost[i] for i, _ in matches}
        taken = {u_detection[j] for _, j in matches}
        return (
            [i for i in u_track if i not in seen],
            [j for j in u_detection if j not in taken],
        )

    def _init_new_tracks(
        self,
        u_detection: list[int],
        detections: list[_Track],
        activated: list[_Track],
        refind: list[_Track],
    ) -> None:
        super()._init_new_tracks(u_detection, detections, activated, refind)
        self._begun = activated

    def _without_removal_of_duplicates(self, known: list[_Track]) -> None:
        """Takes back those that ByteTrack dropped as they overlap another.

        A person hidden by another is expected just there, and the younger of both would begin again
        with a new id. Duplicates do not come: each person is answered once.
        """
        kept = {id(one) for one in (*self.tracked_stracks, *self.lost_stracks)}
        for track in (*known, *self._begun):
            if id(track) in kept:
                continue
            kept.add(id(track))
            if track.state == TrackState.Tracked:
                self.tracked_stracks.append(track)
            elif track.state == TrackState.Lost:
                self.lost_stracks.append(track)

    def get_dists(self, tracks: list[_Track], detections: list[_Track]) -> NDArray[Any]:
        distances: NDArray[Any] = iou_distance(tracks, detections)
        if not distances.size or not self._pose_weight:
            return distances
        ours, theirs = (
            np.stack([one.joints for one in side]).astype(np.float64)
            for side in (tracks, detections)
        )
        areas, others = (
            np.array([one.tlwh[2] * one.tlwh[3] for one in side]) for side in (tracks, detections)
        )
        # An uncertain joint counts little; none at all would leave nothing to average.
        certain = np.minimum(ours[:, None, :, 2], theirs[None, :, :, 2]) + 1e-3
        alike = oks_matrix(
            ours[..., :2],
            areas,
            theirs[..., :2],
            others,
            self._skeleton.sigmas,
            weights=certain,
            widen=WIDER,
        )
        weight = self._pose_weight
        return (1 - weight) * distances + weight * (1 - alike)


def _offsets(tracks: list[_Track], detections: list[_Track]) -> NDArray[Any]:
    """How far detections are from tracks, (N, M), in mean heights; infinite for other sizes."""
    places = np.array([track.xywh for track in tracks])
    others = np.array([track.xywh for track in detections])
    heights = (places[:, None, 3] + others[None, :, 3]) / 2
    trunks, found = (np.stack([one.trunk for one in side]) for side in (tracks, detections))
    distances = np.linalg.norm(trunks[:, None] - found[None], axis=2)
    ratios = np.abs(np.log(places[:, None, 3] / others[None, :, 3]))
    costs: NDArray[Any] = np.where(ratios < np.log(SIZES), distances / heights, 1e6)
    return costs
