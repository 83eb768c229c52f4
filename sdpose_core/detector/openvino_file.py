"""A detector of another project in an ONNX or OpenVINO file, run by OpenVINO on the CPU."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpose_core.detector.classes import class_numbers
from sdpose_core.detector.families import Preparation, Shape, family_of
from sdpose_core.detector.letterbox import Letterbox, canvas_for, paste_arrays
from sdpose_core.detector.protocol import DetectorError, DetectorImage
from sdpose_core.detector.yolo import BoxSettings, kept_boxes, size_of
from sdpose_core.messages import error_line
from sdpose_core.types import Detections, Image

FILE_PRECISIONS = ("fp32", "fp16", "bf16")


class FileDetector:
    """A detector whose family is recognised by the file's inputs and outputs (``families``).

    The size of its input is the file's; where that varies, images get the smallest canvas of
    which the longest side is ``input_size``. A file whose batch varies gets batches, any other
    one image at a time. Any number of threads may call ``detect``.

    Args:
        path: An ``.onnx`` file, or an ``.xml`` file with its ``.bin`` beside it.
        name: The detector's name.
        classes: Names or numbers of what to look for; empty is ``person``.
        precision: One of ``FILE_PRECISIONS``, or ``"auto"``: fp32.
        threads: Processor threads of one call; None leaves it to OpenVINO.
        boxes: Which boxes are kept.

    Raises:
        DetectorError: truncated, of no known layout, or without such a class.
        ValueError: a precision that is not available.
    """

    backend = "openvino"
    device = "cpu"

    def __init__(
        self,
        path: Path,
        name: str,
        classes: Sequence[str],
        precision: str,
        threads: int | None,
        boxes: BoxSettings,
    ) -> None:
        # Imported here, as a GPU needs no OpenVINO.
        from sdpose_core.hardware.openvino_models import (
            RequestPool,
            choose_precision,
            compile_model,
        )

        model = _read(path)
        shapes = [_shape(port) for port in model.inputs], [_shape(port) for port in model.outputs]
        names, task = _facts(model)
        family = family_of(*shapes)
        if family is None or task not in ("", "detect"):
            raise DetectorError(f"{path}: {_layout(model, task)}")
        if names and family.classes not in (None, len(names)):
            raise DetectorError(
                f"{path}: names {len(names)} classes, but its output has {family.classes}"
            )
        # These networks give pixels, which in bf16 come in steps of two from 256 and four from 512.
        requested = "fp32" if precision == "auto" else precision
        self.precision = choose_precision(requested, FILE_PRECISIONS)
        self.name = name
        self._path = path
        self._family = family
        self._classes = class_numbers(classes, names, family.classes, str(path))
        self._boxes = boxes
        self._min_score = max(boxes.min_score, family.lowest)
        batch, _, *sides = shapes[0][0]
        self._batches = batch is None
        self._fixed = (sides[0], sides[1]) if sides[0] and sides[1] else None
        try:
            ready = _takes_pixels(model, family.image)
            self._requests = RequestPool(compile_model(ready, self.precision, threads))
            self.detect([np.full((64, 96, 3), 114, np.uint8)])
        except (RuntimeError, IndexError) as error:
            raise DetectorError(f"{path}: does not run: {_last_line(error)}") from error

    def detect(self, images: Sequence[DetectorImage]) -> list[Detections]:
        """The requested classes (people) in each image; see ``PersonDetector.detect``."""
        groups: dict[tuple[int, int], list[int]] = {}
        for position, image in enumerate(images):
            groups.setdefault(self._canvas(size_of(image, position)), []).append(position)
        results: dict[int, Detections] = {}
        for canvas, positions in groups.items():
            arrays = [_array(images[position]) for position in positions]
            results.update(zip(positions, self._detect_batch(arrays, canvas), strict=True))
        return [results[position] for position in range(len(images))]

    def network_alone(self, images: Sequence[DetectorImage]) -> Callable[[], object]:
        """A call that runs the network on these images of one size and nothing else, for timing."""
        canvas = self._canvas(size_of(images[0], 0))
        pixels, _ = self._pasted([_array(image) for image in images], canvas)

        def call() -> None:
            for part in self._parts(pixels):
                with self._requests.borrowed() as request:
                    request.infer([part], share_inputs=True)

        return call

    def _canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        return self._fixed or canvas_for(size, self._boxes.input_size, square=self._boxes.square)

    def _pasted(
        self, images: list[Image], canvas: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], list[Letterbox]]:
        boxes = [
            Letterbox.fit(
                (image.shape[0], image.shape[1]), canvas, centred=self._family.image.centred
            )
            for image in images
        ]
        return paste_arrays(images, boxes, canvas), boxes

    def _parts(self, pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        step = len(pixels) if self._batches else 1
        return (pixels[start : start + step] for start in range(0, len(pixels), step))

    def _detect_batch(self, images: list[Image], canvas: tuple[int, int]) -> Iterator[Detections]:
        pixels, boxes = self._pasted(images, canvas)
        places = iter(boxes)
        for part in self._parts(pixels):
            with self._requests.borrowed() as request:
                request.infer([part], share_inputs=True)
                # Views of the request's memory, from which ``read`` copies what is kept.
                outputs = [tensor.data for tensor in request.output_tensors]
                found = list(self._family.read(outputs, canvas, self._classes, self._min_score))
            if len(found) != len(part):
                raise DetectorError(
                    f"{self._path}: gave {len(found)} results for {len(part)} images"
                )
            for corners, scores in found:
                if len(scores) and not scores.max() <= 1:
                    raise DetectorError(f"{self._path}: scores outside 0..1; {_HELP}")
                yield kept_boxes(
                    corners.astype(np.float32, copy=False),
                    scores.astype(np.float32, copy=False),
                    next(places),
                    self._boxes.overlap(self._family.max_overlap),
                    self._boxes.max_people,
                )


_HELP = "docs/detectors.md lists the layouts that are known"


def _read(path: Path) -> Any:
    from sdpose_core.hardware.openvino_models import core

    try:
        return core().read_model(path)
    except RuntimeError as error:
        kind = "an ONNX file" if path.suffix == ".onnx" else "an OpenVINO model with its .bin"
        raise DetectorError(f"{path}: not {kind}, or truncated ({_last_line(error)})") from error


def _last_line(error: BaseException) -> str:
    """OpenVINO's messages begin with places in its sources and end with what happened."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return error_line(ValueError(lines[-1])) if lines else error_line(error)


def _shape(port: Any) -> Shape:
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return ()
    return tuple(side.get_length() if side.is_static else None for side in shape)


def _layout(model: Any, task: str) -> str:
    """Why the file cannot be used, with what it has."""
    if task not in ("", "detect"):
        return f"a network for the task {task!r}, not for detection"
    ports = []
    for kind in (model.inputs, model.outputs):
        described = (f"{_name(port)} {port.partial_shape}" for port in kind)
        ports.append(", ".join(described) or "none")
    return f"no known layout: inputs {ports[0]}; outputs {ports[1]}; {_HELP}"


def _name(port: Any) -> str:
    return min(port.get_names(), default="(unnamed)")


def _facts(model: Any) -> tuple[Mapping[int, str], str]:
    """Names of the classes by number, and the task, from ultralytics' metadata if it is there."""
    task, names = _info(model, "framework", "task"), _info(model, "framework", "names")
    try:
        read = ast.literal_eval(names) if names else None
    except (ValueError, SyntaxError):
        read = None
    if isinstance(read, dict) and all(isinstance(key, int) for key in read):
        return {key: str(value) for key, value in read.items()}, task
    if isinstance(read, list):
        return dict(enumerate(map(str, read))), task
    labels = _info(model, "model_info", "labels")
    return dict(enumerate(labels.split())), task


def _info(model: Any, *place: str) -> str:
    return str(model.get_rt_info(list(place)).astype(str)) if model.has_rt_info(list(place)) else ""


def _takes_pixels(model: Any, image: Preparation) -> Any:
    """The model for RGB images ``(B, H, W, 3)`` uint8."""
    from sdpose_core.hardware.openvino_models import pixels_in

    steps = pixels_in(model)
    if image.bgr:
        steps.input().preprocess().reverse_channels()
    steps.input().preprocess().mean(list(image.mean)).scale(list(image.scale))
    return steps.build()


def _array(image: DetectorImage) -> Image:
    return image if isinstance(image, np.ndarray) else image.cpu().numpy()
