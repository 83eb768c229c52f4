"""The interface of every person detector, whatever its network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from torch import Tensor

from sdpose_core.types import Detections, Image

DetectorImage: TypeAlias = Image | Tensor
"""RGB uint8 ``(height, width, 3)``: an array, or a tensor on the detector's device."""


class DetectorError(ValueError):
    """A detector cannot be loaded: the message names the file and the reason in one sentence."""


class PersonDetector(Protocol):
    """Finds people in images. Any number of threads may call ``detect`` at the same time.

    A detector with another network and another licence (say, one read from an ONNX file) only needs
    these members; ``load_detector`` is the only place that would have to know it.
    """

    @property
    def name(self) -> str:
        """The detector's name in answers and logs."""
        ...

    def detect(self, images: Sequence[DetectorImage]) -> list[Detections]:
        """People in each image, best first; boxes lie within the image and have a positive area.

        Args:
            images: any number of images of any sizes.

        Raises:
            ValueError: something is not an RGB uint8 image; the message names its position.
        """
        ...
