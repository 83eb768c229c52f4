"""A detector of the user's own code: ``package.module:factory``, called in this process."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from sdpose_core.detector.protocol import DetectorError, DetectorImage, PersonDetector
from sdpose_core.messages import error_line
from sdpose_core.types import Detections

_SPEC: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_factory(name: str) -> bool:
    """Whether a detector's name has the form ``package.module:factory``."""
    return _SPEC.fullmatch(name) is not None


def factory_file(spec: str) -> Path:
    """The source file of the factory's module, to identify the detector by.

    Raises:
        DetectorError: there is no such module, or it has no file.
    """
    module = spec.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.has_location or found.origin is None:
        raise DetectorError(f"{spec}: no module {module!r} in a file on Python's path (PYTHONPATH)")
    return Path(found.origin)


class FactoryDetector:
    """A detector made by a caller's factory, with its answers checked.

    Args:
        spec: ``package.module:factory``; the factory is called without arguments.

    Raises:
        DetectorError: the module or the factory is missing or raises, or what it returns does not
            fit ``PersonDetector``.
    """

    backend = "factory"
    device = "cpu"
    precision = "its own"

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._detector = _made(spec)
        self.name = self._detector.name

    def detect(self, images: Sequence[DetectorImage]) -> list[Detections]:
        """People in each image, best first, boxes within the image.

        Raises:
            DetectorError: the detector failed, or what it returned is not finite, of another shape,
                without area, or scored outside 0..1; the message names the factory.
        """
        try:
            found = list(self._detector.detect(images))
        except Exception as error:
            raise DetectorError(f"{self._spec}: detect failed: {_named(error)}") from error
        if len(found) != len(images):
            raise DetectorError(
                f"{self._spec}: detect gave {len(found)} results for {len(images)} images"
            )
        return [
            self._checked(one, (image.shape[1], image.shape[0]))
            for one, image in zip(found, images, strict=True)
        ]

    def network_alone(self, images: Sequence[DetectorImage]) -> Callable[[], object]:
        """All of ``detect``: what is the network in it is not known."""
        return lambda: self._detector.detect(images)

    def _checked(self, found: Any, size: tuple[int, int]) -> Detections:
        try:
            boxes = np.asarray(found.boxes, np.float32)
            scores = np.asarray(found.scores, np.float32)
        except (AttributeError, TypeError, ValueError) as error:
            raise DetectorError(
                f"{self._spec}: detect gave {type(found).__name__} instead of Detections with "
                "boxes (N, 4) and scores (N,)"
            ) from error
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
            raise DetectorError(
                f"{self._spec}: expected boxes (N, 4) and scores (N,), detect gave {boxes.shape} "
                f"and {scores.shape}"
            )
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise DetectorError(f"{self._spec}: detect gave a box or a score that is not finite")
        if ((scores < 0) | (scores > 1)).any():
            raise DetectorError(f"{self._spec}: detect gave a score outside 0..1")
        if (boxes[:, 2:] <= boxes[:, :2]).any():
            raise DetectorError(
                f"{self._spec}: detect gave a box without area; expected x1 < x2 and y1 < y2"
            )
        inside = np.clip(boxes, 0, np.array([*size, *size], np.float32))
        solid = (inside[:, 2:] > inside[:, :2]).all(axis=1)
        return Detections(inside[solid], scores[solid]).select()


def _made(spec: str) -> PersonDetector:
    module, _, name = spec.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DetectorError(
            f"{spec}: no module {error.name!r} on Python's path (PYTHONPATH)"
        ) from error
    except Exception as error:
        raise DetectorError(f"{spec}: importing {module} failed: {_named(error)}") from error
    factory = getattr(found, name, None)
    if not callable(factory):
        raise DetectorError(f"{spec}: {module} has no function {name!r}")
    try:
        detector: PersonDetector = factory()
    except Exception as error:
        raise DetectorError(f"{spec}: the factory failed: {_named(error)}") from error
    if not callable(getattr(detector, "detect", None)) or not isinstance(
        getattr(detector, "name", None), str
    ):
        raise DetectorError(
            f"{spec}: the factory returned {type(detector).__name__}, which does not fit "
            "PersonDetector: expected a name and detect(images)"
        )
    return detector


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error_line(error)}"
