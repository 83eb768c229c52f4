"""Finding people: the protocol, the included detectors, and those of other projects."""

from sdpose_core.detector.load import as_detector, load_detector
from sdpose_core.detector.protocol import (
    DetectorError,
    DetectorImage,
    LoadedDetector,
    PersonDetector,
)
from sdpose_core.detector.yolo import YoloPersonDetector

__all__ = [
    "DetectorError",
    "DetectorImage",
    "LoadedDetector",
    "PersonDetector",
    "YoloPersonDetector",
    "as_detector",
    "load_detector",
]
