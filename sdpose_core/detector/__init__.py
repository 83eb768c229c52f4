"""Finding people: the protocol, and the included YOLO detectors."""

from sdpose_core.detector.load import load_detector
from sdpose_core.detector.protocol import DetectorError, DetectorImage, PersonDetector
from sdpose_core.detector.yolo import YoloPersonDetector

__all__ = [
    "DetectorError",
    "DetectorImage",
    "PersonDetector",
    "YoloPersonDetector",
    "load_detector",
]
