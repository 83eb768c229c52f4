"""Image files to pixels: within a budget of memory, and no larger than is of use.

A photograph of twelve megapixels has far more pixels than the detector looks at, and libjpeg
decodes a half or a quarter of its resolution in half the time. People who are large enough are cut
from the small image; for others the whole one is decoded.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace

import numpy as np

from sdpose_core.types import Detections, Floats, Image, Poses
from sdpose_core.vision.image_files import (
    REDUCTIONS,
    Header,
    ImageFileError,
    ImageLimits,
    decode_image,
    read_header,
)
from service.errors import ErrorCode, ServiceError
from service.scheduling.budget import ByteBudget


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image with a `reduction`-th of its resolution, and the size of the whole one."""

    pixels: Image
    reduction: int
    width: int
    height: int

    def shrunk(self, people: Detections) -> Detections:
        """People of the whole image in pixels of this one."""
        if self.reduction == 1:
            return people
        return replace(people, boxes=(people.boxes / self.reduction).astype(np.float32))

    def grown(self, people: Detections) -> Detections:
        """People of this image in pixels of the whole one."""
        if self.reduction == 1:
            return people
        return replace(people, boxes=people.boxes * np.float32(self.reduction))

    def inside(self, people: Detections) -> Detections:
        """Detections without what lies beyond the whole image: the last block may be cut off."""
        if self.reduction == 1:
            return people
        limit = np.array([self.width, self.height] * 2, np.float32) / self.reduction
        return replace(people, boxes=np.minimum(people.boxes, limit))

    def grown_poses(self, poses: Poses) -> Poses:
        """Poses of this image in pixels of the whole one.

        A pixel here is the mean of a block there, so its middle is the middle of the block.
        """
        if self.reduction == 1:
            return poses
        points = (poses.keypoints + 0.5) * self.reduction - 0.5
        return replace(
            poses,
            keypoints=points.astype(np.float32),
            boxes=poses.boxes * np.float32(self.reduction),
        )


class ImageDecoder:
    """Decodes image files; in any thread.

    Args:
        limits: Of one image.
        budget: Memory of all decoded images in flight.
        least_side: Shortest long side that an image may be reduced to: twice what the detector
            sees, so that it finds the same people.
        crop_size: Width and height of the student's crops: no person is enlarged unnecessarily.
    """

    def __init__(
        self,
        limits: ImageLimits,
        budget: ByteBudget,
        *,
        least_side: int,
        crop_size: tuple[int, int],
    ) -> None:
        self._limits = limits
        self._budget = budget
        self._least_side = least_side
        self._crop_size = crop_size

    def decode(
        self,
        source: bytes | Image,
        *,
        whole: bool = False,
        boxes: Floats | None = None,
        instead_of: Decoded | None = None,
    ) -> Decoded:
        """The image, reduced unless `whole`; `boxes` are people known already.

        `instead_of` is the caller's earlier one, which need not leave memory free beside it.
        Raises `ServiceError` for a file that cannot be used, or if memory is short.
        """
        if not isinstance(source, bytes):
            return Decoded(source, 1, source.shape[1], source.shape[0])
        try:
            header = read_header(source, self._limits)
            reduction = 1 if whole else self._reduction(header, boxes)
            held = 0 if instead_of is None else instead_of.pixels.nbytes
            pixels = self._within_budget(source, header, reduction, held)
        except ImageFileError as error:
            raise ServiceError(ErrorCode(error.code), str(error)) from None
        width, height = header.shown_size
        return Decoded(pixels, reduction, width, height)

    def large_enough(self, boxes: Floats) -> bool:
        """Whether the people of boxes are at least as large as the student's crops."""
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        across, down = self._crop_size
        return bool((np.maximum(height, width * down / across) >= down).all())

    def _reduction(self, header: Header, boxes: Floats | None) -> int:
        if not header.for_opencv:
            return 1
        width, height = header.width, header.height
        fitting = [
            reduction
            for reduction in REDUCTIONS
            if max(width, height) >= reduction * self._least_side
            # A block that is cut off is at the end of the stored rows, not of the turned ones.
            and (header.orientation == 1 or not (width % reduction or height % reduction))
            and (boxes is None or self.large_enough(boxes / np.float32(reduction)))
        ]
        return max(fitting, default=1)

    def _within_budget(self, data: bytes, header: Header, reduction: int, held: int) -> Image:
        self._budget.take(header.peak_bytes, held=held)
        try:
            image = decode_image(data, self._limits, header, reduction=reduction)
        except BaseException:
            self._budget.give_back(header.peak_bytes)
            raise
        self._budget.give_back(header.peak_bytes - image.nbytes)
        weakref.finalize(image, self._budget.give_back, image.nbytes)
        return image
