"""What every person detector offers, whatever network is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from torch import Tensor

from sdpose_core.types import Detections, Image

DetectorImage: TypeAlias = Image | Tensor
"""RGB uint8 ``(height, width, 3)``: an array, or a tensor that lies on the detector's device."""


class DetectorError(ValueError):
    """A detector cannot be had: the message says which file or name, and why, in one sentence."""


class PersonDetector(Protocol):
    """Finds people in images. Any number of threads may call ``detect`` at the same time.

    A detector with another network and another licence (say, one read from an ONNX file) fits in
    by having these members; ``load_detector`` is the one place that would have to know it.
    """

    @property
    def name(self) -> str:
        """What the detector is called in answers and logs."""
        ...

    def detect(self, images: Sequence[DetectorImage]) -> list[Detections]:
        """People in each image, best first; boxes lie within the image and have an area.

        Args:
            images: any number of images of any sizes.

        Raises:
            ValueError: something is not an RGB uint8 image; the message names its position.
        """
        ...
