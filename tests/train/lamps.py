"""Lamps as joints: context crops in which every joint is known, and a student that sees them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.data.shards import CONTEXT_SIZE
from sdpose_core.model import Student, StudentConfig

WIDE = StudentConfig("wide", input_size=(192, 192), heatmap_size=(48, 48), padding=1.1)


class LitPixels(Student):
    """Sees lamps: the nose is red, of a pair the left one is the green lamp on the view's right.

    As with people: in the mirror it takes the left one for the right one.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        taps = torch.arange(-24, 25)
        self.blur = torch.exp(-(taps**2) / 128.0)

    def forward(self, images: Tensor, cycles: int | None = None) -> Tensor:
        middle = images.shape[3] // 2
        red, green = images[:, 0:1] / 255, images[:, 1:2] / 255
        right, left = green.clone(), green.clone()
        right[..., :middle] = 0
        left[..., middle:] = 0
        side = [red] + [right, left] * 8
        maps = torch.cat(side, 1)
        for shape, step in (((-1, 1), (4, 1)), ((1, -1), (1, 4))):
            kernel = self.blur.reshape(1, 1, *shape).expand(17, 1, -1, -1)
            pad = (kernel.shape[2] // 2, kernel.shape[3] // 2)
            maps = F.conv2d(maps, kernel, stride=step, padding=pad, groups=17)
        # As high as the lamp is bright, however large the view shows it.
        return maps / maps.amax((2, 3), keepdim=True).clamp_min(1e-6) * 0.9


def lamps(count: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Context crops with a red and two green lamps, and where joints are: (count, 17, 2)."""
    rng = np.random.default_rng(0)
    width, height = CONTEXT_SIZE
    rows, columns = np.mgrid[:height, :width]
    pictures = np.full((count, height, width, 3), 20, np.float32)
    pictures[..., :2] = 0
    joints = np.zeros((count, 17, 2), np.float32)
    for picture, points in zip(pictures, joints, strict=True):
        nose = rng.uniform((110, 130), (160, 200))
        left = rng.uniform((150, 120), (185, 250))
        right = rng.uniform((80, 120), (115, 250))
        for plane, (x, y) in ((0, nose), (1, left), (1, right)):
            picture[..., plane] += 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
        points[0], points[1::2], points[2::2] = nose, left, right
    return pictures.clip(0, 255).astype(np.uint8), joints
