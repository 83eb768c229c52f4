"""Fitting images of any size into the detector's input, and boxes back out of it.

Two spaces, both in pixels with box coordinates measured at pixel edges (0 is the left edge of the
first pixel, ``width`` the right edge of the last one):

- *image*: the original image;
- *input*: the network's canvas. The image is scaled with its aspect kept, in the middle or at the
  top left; the rest is grey 114, the value that the networks were trained with.

Both directions are implemented only here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sdpose_core.types import Floats, Image

PAD_VALUE = 114
STRIDE = 32
"""Height and width of the canvas are multiples of this, the coarsest stride of the networks."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where one image lies on the canvas.

    Attributes:
        image_size: ``(height, width)`` of the image.
        scaled_size: ``(height, width)`` of the image on the canvas.
        offset: ``(top, left)`` of the image on the canvas.
    """

    image_size: tuple[int, int]
    scaled_size: tuple[int, int]
    offset: tuple[int, int]

    @classmethod
    def fit(
        cls, image_size: tuple[int, int], canvas: tuple[int, int], *, centred: bool = True
    ) -> Letterbox:
        """Place an image on a canvas, both ``(height, width)``; small images are upscaled.

        Not ``centred`` is at the top left.
        """
        scaled = _scaled(image_size, canvas)
        if not centred:
            return cls(image_size, scaled, (0, 0))
        offset = ((canvas[0] - scaled[0]) // 2, (canvas[1] - scaled[1]) // 2)
        return cls(image_size, scaled, offset)

    @property
    def _scale(self) -> NDArray[np.float64]:
        """Input pixels per image pixel, xy. Each axis has its own because sizes are whole."""
        return np.array(
            [
                self.scaled_size[1] / self.image_size[1],
                self.scaled_size[0] / self.image_size[0],
            ]
        )

    def image_to_input(self, boxes: Floats) -> Floats:
        """Boxes ``(N, 4)`` xyxy from the image to the canvas."""
        corners = boxes.reshape(-1, 2, 2) * self._scale + self.offset[::-1]
        return corners.reshape(-1, 4).astype(np.float32)

    def input_to_image(self, boxes: Floats) -> Floats:
        """Boxes ``(N, 4)`` xyxy from the canvas to the image, clipped to the image."""
        corners = (boxes.reshape(-1, 2, 2) - self.offset[::-1]) / self._scale
        limit = np.array([self.image_size[1], self.image_size[0]], np.float64)
        return np.clip(corners, 0, limit).reshape(-1, 4).astype(np.float32)


def _scaled(image_size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """The largest size that fits the canvas, with its aspect kept up to rounding.

    A fitted canvas may have had its short side rounded down: the ratio of the long side is then
    the larger one, and still fits.
    """
    smaller, larger = sorted((canvas[0] / image_size[0], canvas[1] / image_size[1]))
    height, width = _times(image_size, larger)
    if height <= canvas[0] and width <= canvas[1]:
        return height, width
    return _times(image_size, smaller)


def _times(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


def canvas_for(image_size: tuple[int, int], longest: int, *, square: bool) -> tuple[int, int]:
    """The canvas ``(height, width)`` for an image.

    Args:
        image_size: ``(height, width)`` of the image.
        longest: side of the square canvas, and the longest side of any other; a multiple of 32.
        square: always use the square one; otherwise the smallest one in steps of 32 on which the
            image has its longest side at ``longest``.
    """
    if square:
        return longest, longest
    height, width = _scaled(image_size, (longest, longest))
    return _round_up(height), _round_up(width)


def _round_up(side: int) -> int:
    return -(-side // STRIDE) * STRIDE


def paste_arrays(
    images: Sequence[Image], boxes: Sequence[Letterbox], canvas: tuple[int, int]
) -> NDArray[np.uint8]:
    """Images on their canvases: ``(B, H, W, 3)`` uint8."""
    batch = np.full((len(images), *canvas, 3), PAD_VALUE, np.uint8)
    for target, image, box in zip(batch, images, boxes, strict=True):
        height, width = box.scaled_size
        top, left = box.offset
        window = target[top : top + height, left : left + width]
        if box.scaled_size == box.image_size:
            window[...] = image
        else:
            window[...] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return batch


def paste_tensors(
    images: Sequence[Tensor], boxes: Sequence[Letterbox], canvas: tuple[int, int]
) -> Tensor:
    """Images on their canvases, ``(B, H, W, 3)`` uint8, on the images' device.

    Agrees with ``paste_arrays`` to within a grey level or two.
    """
    batch = images[0].new_full((len(images), *canvas, 3), PAD_VALUE)
    for target, image, box in zip(batch, images, boxes, strict=True):
        height, width = box.scaled_size
        top, left = box.offset
        window = target[top : top + height, left : left + width]
        if box.scaled_size == box.image_size:
            window.copy_(image)
            continue
        planes = image.permute(2, 0, 1)[None].to(torch.float32)
        scaled = functional.interpolate(planes, (height, width), mode="bilinear")
        window.copy_(scaled[0].round().clamp(0, 255).permute(1, 2, 0))
    return batch
