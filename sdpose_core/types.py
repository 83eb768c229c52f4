"""Values passed between modules: images, detections, regions and poses.

Every box is ``xyxy`` in pixels of the original image; every point is ``xy`` in the same pixels,
with (0, 0) at the centre of the top-left pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdpose_core.skeleton import COCO17, Skeleton

Image: TypeAlias = NDArray[np.uint8]
"""RGB, uint8, shape ``(height, width, 3)``."""

Floats: TypeAlias = NDArray[np.float32]

NO_DETECTOR: Final = "none"
"""Name in the place of a detector's if there is none."""

Ids: TypeAlias = NDArray[np.int64]
"""The ids of people over time, ``(N,)``."""
NO_ID: Final = 0
"""The id of a person seen only once so far; ids count from 1."""


def check_image(image: Any, name: str = "image") -> Image:
    """Return ``image`` if it is an RGB uint8 array ``(height, width, 3)`` with at least one pixel.

    Raises:
        ValueError: naming the expected and the actual shape and type.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"{name}: expected a uint8 array of shape (height, width, 3) in RGB order, a path or a "
            f"Pillow image, got {type(image).__name__}"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"{name}: expected a uint8 array of shape (height, width, 3) in RGB order, "
            f"got {image.dtype} of shape {image.shape}"
        )
    return image


def check_boxes(boxes: ArrayLike, name: str = "boxes") -> Floats:
    """Return ``boxes`` as float32 ``(N, 4)`` xyxy; an empty input gives ``(0, 4)``.

    Raises:
        ValueError: wrong shape, a value that is not finite, or a box without area.
    """
    array = np.asarray(boxes, dtype=np.float32)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"{name}: expected shape (N, 4) in xyxy order, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: every value must be finite")
    empty = (array[:, 2] <= array[:, 0]) | (array[:, 3] <= array[:, 1])
    if empty.any():
        first = int(np.flatnonzero(empty)[0])
        raise ValueError(
            f"{name}: box {first} has no area: expected x1 < x2 and y1 < y2, "
            f"got {array[first].tolist()}"
        )
    return array


def _require(array: Any, shape: tuple[int | None, ...], name: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name}: expected a float32 array, got {kind}")
    fits = array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        expected = tuple("N" if want is None else want for want in shape)
        raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """People found in one image.

    Attributes:
        boxes: ``(N, 4)`` float32, xyxy pixels of the image.
        scores: ``(N,)`` float32 in 0..1, highest first.
    """

    boxes: Floats
    scores: Floats

    def __post_init__(self) -> None:
        _require(self.boxes, (None, 4), "Detections.boxes")
        _require(self.scores, (len(self.boxes),), "Detections.scores")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0,), np.float32))

    def select(self, min_score: float | None = None, limit: int | None = None) -> Detections:
        """The ``limit`` best with at least ``min_score``, best first."""
        order = np.argsort(-self.scores, kind="stable")
        if min_score is not None:
            order = order[self.scores[order] >= min_score]
        if limit is not None:
            order = order[:limit]
        return Detections(self.boxes[order], self.scores[order])


class Cycles(NamedTuple):
    """How often a student's transformer may run.

    Attributes:
        lowest: 0 for a student whose backbone alone gives heatmaps, else 1.
        highest: The number it was trained with.
        served: The default when the caller gives no number.
    """

    lowest: int
    highest: int
    served: int

    def check(self, requested: int | None) -> int:
        """``requested`` if the student supports it; None is the served number.

        Raises:
            ValueError: naming the range.
        """
        if requested is None:
            return self.served
        if not self.lowest <= requested <= self.highest:
            raise ValueError(f"cycles: expected {self.described}, got {requested}")
        return requested

    @property
    def described(self) -> str:
        """Such as ``"1 to 3"``."""
        one = self.lowest == self.highest
        return str(self.lowest) if one else f"{self.lowest} to {self.highest}"


@dataclass(frozen=True, slots=True)
class ViewGeometry:
    """The student's sizes that coordinates depend on. Defaults are the published students'.

    Attributes:
        input_size: Width and height of a crop in pixels.
        heatmap_size: Width and height of a heatmap in pixels.
        padding: How much larger than the person's box, grown to the crop's aspect, the view is.
    """

    input_size: tuple[int, int] = (192, 256)
    heatmap_size: tuple[int, int] = (48, 64)
    padding: float = 1.25


PUBLISHED_VIEW: Final = ViewGeometry()


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """The padded view of each person from which its crop is taken, in the crop's aspect.

    Attributes:
        centres: ``(N, 2)`` float32, xy pixels of the image.
        sizes: ``(N, 2)`` float32, width and height in pixels of the image.
        view: Sizes of the crops and heatmaps that belong to them.
    """

    centres: Floats
    sizes: Floats
    view: ViewGeometry = PUBLISHED_VIEW

    def __post_init__(self) -> None:
        _require(self.centres, (None, 2), "Regions.centres")
        _require(self.sizes, (len(self.centres), 2), "Regions.sizes")

    def __len__(self) -> int:
        return len(self.centres)


class Joints(NamedTuple):
    """The keypoints of some people, N of them with K each.

    Attributes:
        points: ``(N, K, 2)`` float32, xy pixels of the image.
        scores: ``(N, K)`` float32.
        visibility: ``(N, K)`` float32 as in ``Poses``, or None.
    """

    points: Floats
    scores: Floats
    visibility: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """The people of one image with their keypoints.

    Attributes:
        keypoints: ``(N, K, 2)`` float32, xy pixels of the image, in the order of
            ``skeleton.keypoints``. They may lie outside the image.
        keypoint_scores: ``(N, K)`` float32 in 0..1, high where a keypoint is present and placed
            correctly.
        boxes: ``(N, 4)`` float32, xyxy pixels of the image.
        scores: ``(N,)`` float32 in 0..1, high where a good pose is expected.
        ids: ``(N,)`` int64, who it is over time, 0 if that is not known yet; None without
            tracking.
        skeleton: Which keypoints these are, K of them.
        visibility: ``(N, K)`` float32 in 0..1, the probability that the keypoint is present: that
            an annotator would label it in COCO's sense, as visible or as hidden but placeable,
            wherever it is placed here. None if the student has no score head.
    """

    keypoints: Floats
    keypoint_scores: Floats
    boxes: Floats
    scores: Floats
    ids: NDArray[np.int64] | None = None
    skeleton: Skeleton = COCO17
    visibility: Floats | None = None

    def __post_init__(self) -> None:
        people = len(self.boxes)
        if self.ids is not None and self.ids.shape != (people,):
            raise ValueError(f"Poses.ids: expected shape ({people},), got {self.ids.shape}")
        _require(self.boxes, (None, 4), "Poses.boxes")
        _require(self.keypoints, (people, len(self.skeleton), 2), "Poses.keypoints")
        _require(self.keypoint_scores, (people, len(self.skeleton)), "Poses.keypoint_scores")
        _require(self.scores, (people,), "Poses.scores")
        if self.visibility is not None:
            _require(self.visibility, (people, len(self.skeleton)), "Poses.visibility")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def finite(self) -> bool:
        """Whether every number is; if not, the models are at fault."""
        numbers = (self.keypoints, self.keypoint_scores, self.boxes, self.scores, self.visibility)
        return all(values is None or bool(np.isfinite(values).all()) for values in numbers)

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Poses:
        """Those that ``chosen`` marks, (N,) bool, or names in the requested order, (M,) indices."""
        return Poses(
            self.keypoints[chosen],
            self.keypoint_scores[chosen],
            self.boxes[chosen],
            self.scores[chosen],
            None if self.ids is None else self.ids[chosen],
            self.skeleton,
            None if self.visibility is None else self.visibility[chosen],
        )

    def first(self, limit: int | None) -> Poses:
        """The first ``limit`` people; None: all."""
        return self if limit is None else self.select(np.arange(len(self))[:limit])

    def to_numpy(self) -> Floats:
        """x, y and score of each keypoint, ``(N, K, 3)``."""
        return np.concatenate([self.keypoints, self.keypoint_scores[..., None]], axis=2)

    def to_dicts(self, min_keypoint_score: float = 0.0) -> list[dict[str, Any]]:
        """The people as the service answers them in JSON, with named keypoints.

        Pixels are rounded to 1/1000, scores to 1/10000; keypoints that score less than the minimum
        are left out.
        """
        people: list[dict[str, Any]] = _exchange().people_json(self, min_keypoint_score)
        return people

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dictionary per keypoint, for ``pandas.DataFrame`` or ``polars.DataFrame``.

        Columns: ``person`` (its index), ``id`` (over time, or None), ``person_score``; of the
        keypoint ``name``, ``x``, ``y``, ``score`` and ``visibility`` (if there is one), rounded as
        in ``to_dicts``.
        """
        rows: list[dict[str, Any]] = _exchange().joint_rows(self)
        return rows

    def to_coco(
        self, image_id: int, first_id: int = 1, *, size: tuple[int, int] | None = None
    ) -> list[dict[str, Any]]:
        """One COCO annotation per person; they also serve as results (``COCO.loadRes``).

        Args:
            image_id: Of the image in the COCO file.
            first_id: Number of the first annotation; the others count on.
            size: Width and height of the image; keypoints beyond it then count as not there.

        Returns:
            Dictionaries of numbers and lists. Keypoints from a score of 0.3 have the flag 2, others
            0, at their places all the same; ``keypoint_scores``, ``visibility`` (if there is one),
            ``score`` and ``track_id`` (if known) come on top of the format.
        """
        annotations: list[dict[str, Any]] = _exchange().coco_annotations(
            self, image_id, first_id, size=size
        )
        return annotations

    def to_supervision(self) -> Any:
        """A ``supervision.KeyPoints``: keypoints from a score of 0.3 are ``visible``.

        ``visibility``, if there is one, is in its ``data``.

        Raises:
            ModuleNotFoundError: supervision 0.29 or newer is not installed.
        """
        return _exchange().supervision_key_points(self)

    def to_supervision_detections(self) -> Any:
        """A ``supervision.Detections`` of the people's boxes, scores and ids (``tracker_id``).

        Raises:
            ModuleNotFoundError: supervision 0.29 or newer is not installed.
        """
        return _exchange().supervision_detections(self)

    @classmethod
    def from_numpy(
        cls,
        joints: ArrayLike,
        boxes: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        *,
        skeleton: Skeleton = COCO17,
    ) -> Poses:
        """Poses of arrays, such as those of another library.

        Args:
            joints: ``(N, K, 3)`` x and y in pixels and score of each keypoint.
            boxes: ``(N, 4)`` xyxy pixels; None: around each person's keypoints.
            scores: ``(N,)`` of the people; None: the means of their keypoints' scores.
            skeleton: Which keypoints these are, K of them.

        Raises:
            ValueError: a wrong shape, or a box without area.
        """
        array = np.asarray(joints, np.float32)
        if array.size == 0:
            return cls.empty(skeleton)
        _require(array, (None, len(skeleton), 3), "joints")
        points, keypoint_scores = array[..., :2].copy(), array[..., 2].copy()
        if boxes is None:
            boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
        if scores is None:
            scores = keypoint_scores.mean(axis=1)
        return cls(
            points,
            keypoint_scores,
            check_boxes(boxes),
            np.asarray(scores, np.float32),
            skeleton=skeleton,
        )

    @classmethod
    def empty(cls, skeleton: Skeleton = COCO17) -> Poses:
        """No people: arrays of length 0 in the right shapes."""
        return cls(
            np.zeros((0, len(skeleton), 2), np.float32),
            np.zeros((0, len(skeleton)), np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros((0,), np.float32),
            skeleton=skeleton,
        )


def _exchange() -> Any:
    """The converters, which are built on these values, and so are imported when they are called."""
    return import_module("sdpose_core.io.exchange")


def given_boxes(boxes: ArrayLike, name: str = "boxes") -> Detections:
    """The caller's own boxes, as detections with a score of 1."""
    array = check_boxes(boxes, name)
    return Detections(array, np.ones(len(array), np.float32))
