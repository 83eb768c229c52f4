"""The network of an ultralytics YOLO detector as a pure function: images in, person scores out.

It differs from ultralytics' own forward pass in two ways:

- It is stateless. Ultralytics' detection head stores the anchor grid of the last input shape, so
  two threads with inputs of different shape can see each other's grid. Here the caller (``decode``)
  computes the grid from the input shape alone.
- It detects the requested classes only, by default persons: the other rows of the class layers are
  removed, which leaves the scores of the rest unchanged and saves a little work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sdpose_core.detector.protocol import DetectorError


def keep_rows(model: nn.Module, classes: Sequence[int]) -> None:
    """Cut the class layers of an ultralytics detection model down to the rows of ``classes``.

    The hidden layers keep their width. Works in place on every branch of the head.
    """
    head = _head(model)
    for branch in ("cv3", "one2one_cv3"):
        for level in getattr(head, branch, None) or ():
            rows: nn.Conv2d = level[-1]
            rows.out_channels = len(classes)
            rows.weight = nn.Parameter(rows.weight.detach()[list(classes)].clone())
            if rows.bias is not None:
                rows.bias = nn.Parameter(rows.bias.detach()[list(classes)].clone())
    head.nc = len(classes)
    head.no = len(classes) + 4 * head.reg_max


def _head(model: nn.Module) -> Any:
    return cast(Any, model).model[-1]


class PersonNetwork(nn.Module):
    """A fused YOLOv8, YOLO11 or YOLO26 detection network that scores the requested classes.

    Args:
        model: an ultralytics ``DetectionModel`` whose head has the requested classes
            (``keep_rows``). It is fused and changed in place; do not use it afterwards.

    Attributes:
        strides: input pixels per cell of each level, in the order of the output.
        needs_nms: false if the head uses its end-to-end branch, which gives one box per person
            without suppression. YOLO26 has both branches; ultralytics saves it set to the other
            one, which finds slightly more and, with suppression at 0.04 ms, is just as fast.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        head = _head(model)
        self.needs_nms = not head.end2end
        source = cast(Any, model)
        source.fuse(verbose=False)
        self.layers = source.model
        self.kept = frozenset(source.save)
        self.strides = tuple(int(stride) for stride in head.stride)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score every anchor of a batch.

        Args:
            images: ``(B, H, W, 3)`` RGB 0..255, uint8 or float; H and W multiples of 32.

        Returns:
            ``(B, 4, A)`` distances from the anchor to the box's left, top, right and bottom side
            in cells, and ``(B, A)`` scores in 0..1 of the likeliest requested class. A runs over
            the levels in the order of ``strides`` and row by row within a level.
        """
        dtype = next(self.parameters()).dtype
        x: Any = images.permute(0, 3, 1, 2).to(dtype) / 255
        outputs: list[Any] = []
        *body, head = cast(Any, self.layers)
        for layer in body:
            x = layer(self._inputs(layer, x, outputs))
            outputs.append(x if layer.i in self.kept else None)
        branch = head.one2many if self.needs_nms else head.one2one
        raw = head.forward_head(self._inputs(head, x, outputs), **branch)
        scores = raw["scores"].sigmoid()
        best = scores.squeeze(1) if scores.shape[1] == 1 else scores.amax(1)
        return head.dfl(raw["boxes"]), best

    @staticmethod
    def _inputs(layer: Any, previous: Any, outputs: list[Any]) -> Any:
        if layer.f == -1:
            return previous
        if isinstance(layer.f, int):
            return outputs[layer.f]
        return [previous if index == -1 else outputs[index] for index in layer.f]


@lru_cache(maxsize=16)
def anchor_grid(
    height: int, width: int, strides: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Anchor centres ``(A, 2)`` (xy, in cells) and strides ``(A,)`` (input pixels per cell).

    Kept, so not to be written to.
    """
    centres, steps = [], []
    for stride in strides:
        rows, columns = height // stride, width // stride
        y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) + np.float32(0.5)
        centres.append(np.stack([x.ravel(), y.ravel()], axis=1))
        steps.append(np.full(rows * columns, stride, np.float32))
    return np.concatenate(centres), np.concatenate(steps)


def decode(
    distances: NDArray[np.float32],
    centres: NDArray[np.float32],
    steps: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Boxes ``(n, 4)`` xyxy in input pixels from distances ``(n, 4)`` of ``n`` chosen anchors."""
    corners = np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1)
    return (corners * steps[:, None]).astype(np.float32, copy=False)


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` into ``model`` strictly.

    Raises:
        DetectorError: naming the first keys that are missing, unknown or of another shape.
    """
    own = model.state_dict()
    wrong = [
        *(f"{key} missing" for key in own if key not in state),
        *(f"{key} unknown" for key in state if key not in own),
        *(
            f"{key} has shape {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DetectorError(
            f"{source}: the weights do not match the network: {'; '.join(wrong[:3])}{more}"
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(state[key])
