"""The interface of every person detector, whatever its network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from torch import Tensor

from sdpose_core.types import Detections, Image

DetectorImage: TypeAlias = Image | Tensor
"""RGB uint8 ``(height, width, 3)``: an array, or a tensor on the detector's device."""


class DetectorError(ValueError):
    """A detector cannot be loaded, or its answers cannot be used: one sentence names it and why."""


class PersonDetector(Protocol):
    """Finds people in images. Any number of threads may call ``detect`` at the same time.

    A detector with another network and another licence only needs these members; a factory that
    makes it is named as ``package.module:factory`` (docs/detectors.md).
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


class LoadedDetector(PersonDetector, Protocol):
    """A detector of ``load_detector``, which also names where it runs."""

    @property
    def backend(self) -> str:
        """``torch``, ``openvino`` or ``factory``."""
        ...

    @property
    def device(self) -> str:
        """Where the network runs, such as ``cpu`` or ``cuda:0``."""
        ...

    @property
    def precision(self) -> str:
        """Number format of the network, such as ``fp32``."""
        ...

    def network_alone(self, images: Sequence[DetectorImage]) -> Callable[[], object]:
        """A call that runs the network on these images of one size and nothing else, for timing."""
        ...
