"""The networks that are exported: a student, alone or with the decoding of its heatmaps."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from sdpose_core.model import ServedStudent, Student
from sdpose_core.vision.heatmaps import MAX_REFINEMENT, decode_tensor

Layout: TypeAlias = Literal["nchw", "nhwc"]
LAYOUTS: Final[tuple[Layout, ...]] = ("nchw", "nhwc")


class HeatmapNetwork(nn.Module):
    """``(B, 3, H, W)`` float RGB crops 0..255 to heatmaps ``(B, K, h, w)``."""

    inputs: Final = ("images",)
    outputs: Final = ("heatmaps",)

    def __init__(self, student: Student, cycles: int) -> None:
        super().__init__()
        self.served = ServedStudent(student, cycles)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.served(images)  # type: ignore[no-any-return]

    def facts(self) -> dict[str, Any]:
        """Facts for users of the file."""
        return {"input": "float32, NCHW, RGB 0..255", "output": "heatmaps"}

    def example(self, crops: Tensor) -> Tensor:
        """Crops ``(B, 3, H, W)`` uint8 as its input."""
        return crops.float()


class KeypointNetwork(nn.Module):
    """uint8 RGB crops to keypoints ``(B, K, 2)`` in pixels of the crop, scores ``(B, K)`` and, if
    the student has a score head, visibility ``(B, K)``.

    Everything that serving does between the crop and the image: the decoder with its bound, and the
    student's score head, else peaks up to 1 are the scores.

    Args:
        layout: Of the crops: ``"nchw"`` is ``(B, 3, H, W)``, ``"nhwc"`` is ``(B, H, W, 3)``.
    """

    inputs: Final = ("images",)
    stride: Tensor

    def __init__(self, student: Student, cycles: int, layout: Layout) -> None:
        super().__init__()
        self.served = ServedStudent(student, cycles)
        self.layout = layout
        visible = () if student.scores is None else ("visibility",)
        self.outputs = ("keypoints", "scores", *visible)
        view = student.config.view
        stride = [a / b for a, b in zip(view.input_size, view.heatmap_size, strict=True)]
        self.register_buffer("stride", torch.tensor(stride), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        if self.layout == "nhwc":
            images = images.permute(0, 3, 1, 2)
        heatmaps = self.served(images.float())
        points, peaks = decode_tensor(heatmaps, MAX_REFINEMENT)
        head = self.served.student.scores
        values = (peaks.clamp(0, 1),) if head is None else head(points, peaks)
        return points * self.stride, *values

    def facts(self) -> dict[str, Any]:
        """Facts for users of the file."""
        return {
            "input": f"uint8, {self.layout.upper()}, RGB 0..255",
            "output": "keypoints: x, y in pixels of the crop, 0 is the middle of the first pixel; "
            f"{', '.join(self.outputs[1:])}: 0..1",
        }

    def example(self, crops: Tensor) -> Tensor:
        """Crops ``(B, 3, H, W)`` uint8 as its input."""
        return crops.permute(0, 2, 3, 1).contiguous() if self.layout == "nhwc" else crops


def facts_of(student: Student, cycles: int) -> dict[str, Any]:
    """Metadata of a student's file, whatever its format."""
    view = student.config.view
    return {
        "preset": student.config.name,
        "cycles": cycles,
        "input_size": list(view.input_size),
        "heatmap_size": list(view.heatmap_size),
        "padding": view.padding,
        "keypoint_names": list(student.config.skeleton.keypoints),
        "skeleton": [list(edge) for edge in student.config.skeleton.edges],
    }
