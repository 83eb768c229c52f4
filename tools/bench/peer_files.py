"""Pose networks of others, run as ours are, to be measured beside them.

A folder holds OpenVINO or ONNX files and a ``peers.toml`` with one table ``[[peer]]`` for each
(``PeerFile``). People are cut out as for a student, with the peer's own size and padding, and its
output becomes keypoints and scores here.
"""

from __future__ import annotations

import tomllib
from dataclasses import field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sdpose_core.data.coco import CocoImage
from sdpose_core.messages import first_complaint
from sdpose_core.skeleton import COCO17
from sdpose_core.types import Floats, Image, Poses, ViewGeometry
from sdpose_core.vision.crops import crop_image
from sdpose_core.vision.geometry import heatmap_to_image, regions_from_boxes
from sdpose_core.vision.heatmaps import MAX_REFINEMENT, decode_tensor

DESCRIPTIONS: Final = "peers.toml"
Kind: TypeAlias = Literal["heatmaps", "simcc", "keypoints"]
Triple: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PeerFile:
    """Description of a file.

    Attributes:
        name: In tables.
        file: ``.xml`` or ``.onnx``, in the folder.
        input_size: Width and height of its crops.
        layout: Of its input.
        mean: Subtracted from RGB values 0..255.
        std: They are divided by it then.
        bgr: Whether it expects blue first; mean and std are in that order then.
        padding: How much larger than the person's box its view is.
        output: ``"heatmaps"``: Gaussian maps ``(B, 17, h, w)``. ``"simcc"``: two outputs, logits
            over x ``(B, 17, width * n)`` and over y ``(B, 17, height * n)`` (arXiv 2107.03332).
            ``"keypoints"``: coordinates and score ``(B, 17, 3)``.
        order: Of the three values of ``"keypoints"``.
        normalised: Whether these coordinates are in units of the crop's size.
        trained: Whether its weights are; random ones are timed only.
        note: Licence and origin, shown below the table.
    """

    name: str
    file: str
    input_size: tuple[int, int]
    output: Kind
    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    bgr: bool = False
    padding: float = 1.25
    order: Literal["xys", "yxs"] = "xys"
    normalised: bool = False
    trained: bool = True
    note: str = field(default="")


def read_peers(folder: Path, descriptions: Path | None = None) -> list[PeerFile]:
    """The peers that a folder describes.

    Args:
        descriptions: Their file; None is ``peers.toml`` in the folder.

    Raises:
        ValueError: no such file, or one that describes no or wrong peers: one sentence.
    """
    path = descriptions or folder / DESCRIPTIONS
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); it describes the files of the folder, "
            "one table [[peer]] each"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    tables = content.get("peer")
    if not isinstance(tables, list) or not tables or set(content) != {"peer"}:
        raise ValueError(f"{path}: expected tables [[peer]] and nothing else")
    peers = []
    for number, table in enumerate(tables, start=1):
        try:
            peer = TypeAdapter(PeerFile).validate_python(table)
        except ValidationError as error:
            where, reason = first_complaint(error)
            raise ValueError(f"{path}: peer {number}: {where}: {reason}") from None
        if not (folder / peer.file).is_file():
            raise ValueError(f"{path}: peer {number}: there is no file {peer.file} in {folder}")
        peers.append(peer)
    return peers


class Peer:
    """A peer on the CPU through OpenVINO.

    Args:
        description: What it is.
        folder: Where its file is.
        precision: As of ``openvino_models.choose_precision``: ``"fp32"``, ``"bf16"``, ``"auto"``.
        threads: Cores of one call; 0 leaves it to OpenVINO.

    Raises:
        ValueError: a file that cannot be read, that the description does not fit, or a precision
            that the processor lacks.
    """

    def __init__(
        self, description: PeerFile, folder: Path, precision: str = "auto", threads: int = 0
    ) -> None:
        import openvino as ov

        from sdpose_core.hardware.backends.lanes import PARTS, Lanes
        from sdpose_core.hardware.openvino_models import choose_precision, compile_model, core

        self.description = description
        self.precision = choose_precision(precision, ("fp32", "bf16"))
        width, height = description.input_size
        self.view = ViewGeometry((width, height), (width, height), description.padding)
        path = folder / description.file
        try:
            model = core().read_model(path)
        except RuntimeError as error:
            raise ValueError(f"{path}: OpenVINO cannot read it") from error
        _check_input(model, description, path)
        shape = [height, width, 3] if description.layout == "nhwc" else [3, height, width]
        blank = np.zeros((2, height, width, 3), np.uint8)
        self.any_batch = True
        try:
            model.reshape(ov.PartialShape([-1, *shape]))
            ready = _with_pixels(model, description)
            compile_model(ready, self.precision, threads).create_infer_request().infer([blank])
            ready.clone().reshape([2, height, width, 3])
        except RuntimeError:  # its graph holds a batch of one somewhere
            self.any_batch = False
            ready = _with_pixels(core().read_model(path), description)
        # As our own student runs: one crop on all cores, more of them in lanes.
        self._request = compile_model(ready, self.precision, threads).create_infer_request()
        parts = PARTS if self.any_batch else (1,)
        self._lanes = Lanes(ready, (height, width, 3), self.precision, threads, parts)
        self(blank)  # a wrong description fails here

    def __call__(self, crops: Image) -> tuple[Floats, Floats]:
        """Keypoints ``(N, 17, 2)`` in crop pixels and scores ``(N, 17)``.

        Args:
            crops: ``(N, height, width, 3)`` uint8 RGB.
        """
        answers = self._lanes.run(crops) if len(crops) > 1 else []
        for at in range(sum(map(self._count, answers)), len(crops)):
            results = self._request.infer([crops[at : at + 1]], share_inputs=True)
            answers.append([np.array(output) for output in results.values()])
        parts = [self._keypoints(outputs) for outputs in answers]
        return np.concatenate([p for p, _ in parts]), np.concatenate([s for _, s in parts])

    def poses(self, image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        """A ``PoseSource``: the people of given boxes."""
        if boxes is None:
            raise ValueError("peers need boxes")
        regions = regions_from_boxes(boxes, self.view)
        points, scores = self(crop_image(image.read(), regions))
        return Poses(
            heatmap_to_image(points, regions), scores, boxes, np.ones(len(boxes), np.float32)
        )

    def _count(self, outputs: list[NDArray[Any]]) -> int:
        # A network of one crop may leave the batch out of its answer.
        return len(outputs[0]) if self.any_batch else 1

    def _keypoints(self, outputs: list[NDArray[Any]]) -> tuple[Floats, Floats]:
        found = [np.asarray(part, np.float32) for part in outputs]
        width, height = self.description.input_size
        kind, count = self.description.output, self._count(outputs)
        if kind == "simcc":
            return _simcc(found, count, (width, height), self.description.file)
        [answer] = found[:1]
        if kind == "heatmaps":
            if answer.ndim != 4 or answer.shape[:2] != (count, len(COCO17)):
                raise _unexpected(self.description, "(B, 17, h, w)", answer.shape)
            points, peaks = decode_tensor(torch.from_numpy(answer.copy()), MAX_REFINEMENT)
            stride = np.array([width, height], np.float32) / answer.shape[:1:-1]
            return points.numpy() * stride.astype(np.float32), peaks.numpy()
        values = answer.reshape(-1, *answer.shape[-2:])
        if values.shape != (count, len(COCO17), 3):
            raise _unexpected(self.description, "(B, 17, 3)", answer.shape)
        places = values[..., [1, 0]] if self.description.order == "yxs" else values[..., :2]
        scale = np.array([width, height] if self.description.normalised else [1, 1], np.float32)
        return places * scale, values[..., 2].copy()


def _check_input(model: Any, description: PeerFile, path: Path) -> None:
    if len(model.inputs) != 1:
        raise ValueError(f"{path}: expected one input, it has {len(model.inputs)}")
    width, height = description.input_size
    expected = (height, width, 3) if description.layout == "nhwc" else (3, height, width)
    shape = model.inputs[0].partial_shape
    fits = shape.rank.is_static and len(shape) == 4
    if not fits or any(
        side.is_static and side.get_length() != length
        for side, length in zip(list(shape)[1:], expected, strict=True)
    ):
        raise ValueError(
            f"{path}: its input is {shape}, which is not (B, {', '.join(map(str, expected))}) of "
            f"input_size {description.input_size} and layout {description.layout}"
        )


def _with_pixels(model: Any, description: PeerFile) -> Any:
    """The model taking uint8 RGB crops with channels last, as ours do."""
    from openvino.preprocess import ColorFormat

    from sdpose_core.hardware.openvino_models import pixels_in

    steps = pixels_in(model, description.layout.upper())
    steps.input().tensor().set_color_format(ColorFormat.RGB)
    work = steps.input().preprocess()
    if description.bgr:
        work = work.convert_color(ColorFormat.BGR)
    work.mean(list(description.mean)).scale(list(description.std))
    return steps.build()


def _simcc(
    found: list[NDArray[np.float32]], count: int, size: tuple[int, int], file: str
) -> tuple[Floats, Floats]:
    if len(found) != 2 or any(p.ndim != 3 or p.shape[:2] != (count, len(COCO17)) for p in found):
        raise ValueError(f"{file}: expected two outputs (B, 17, bins), got {_shapes(found)}")
    points, tops = [], []
    for logits, side in zip(found, size, strict=True):
        points.append(logits.argmax(2) * (side / logits.shape[2]))
        tops.append(logits.max(2))
    scores = np.minimum(*tops)
    return np.stack(points, axis=2).astype(np.float32), scores


def _unexpected(description: PeerFile, expected: str, got: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"{description.file}: an output of kind {description.output} is {expected}, it is {got}"
    )


def _shapes(parts: list[NDArray[np.float32]]) -> str:
    return ", ".join(str(part.shape) for part in parts)
