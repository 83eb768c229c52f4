"""Cutting people out of images: on the CPU with OpenCV, on a device with ``grid_sample``.

Both sample bilinearly at the same points and see black outside the image; they agree to within two
grey levels (OpenCV computes in fixed point).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdpose_core.types import Image, Regions
from sdpose_core.vision.geometry import (
    image_to_crop_matrices,
    invert_matrices,
    move_matrices,
    window_around,
)


@dataclass(frozen=True, slots=True, eq=False)
class PersonCrops:
    """The people of one image, cut out for the student.

    Attributes:
        pixels: ``(N, 3, height, width)`` RGB 0..255 on the device of the student, uint8 on a CPU
            (channels last in memory) and float32 on a GPU.
        regions: The view of each person, image pixels.
    """

    pixels: Tensor
    regions: Regions

    def __len__(self) -> int:
        return len(self.regions)


def joined(pixels: Sequence[Tensor]) -> Tensor:
    """The crops of several images as one batch, their memory layout unchanged.

    On a CPU by NumPy, in this thread: PyTorch's helpers would spin on the cores that the student
    needs next.
    """
    if len(pixels) == 1:
        return pixels[0]
    if pixels[0].device.type != "cpu":
        return torch.cat(list(pixels))
    arrays = [part.permute(0, 2, 3, 1).numpy() for part in pixels]
    return torch.from_numpy(np.concatenate(arrays)).permute(0, 3, 1, 2)


def crop_image(image: Image, regions: Regions) -> Image:
    """The views of ``regions`` in one image: ``(N, height, width, 3)`` uint8 RGB."""
    width, height = size = regions.view.input_size
    crops = np.empty((len(regions), height, width, 3), np.uint8)
    for crop, matrix in zip(crops, image_to_crop_matrices(regions), strict=True):
        cv2.warpAffine(image, matrix, size, dst=crop, flags=cv2.INTER_LINEAR)
    return crops


def crop_tensor(image: Tensor, regions: Regions) -> Tensor:
    """The views of ``regions`` in one image that is already on a device.

    Args:
        image: ``(height, width, 3)`` uint8 RGB.

    Returns:
        ``(N, 3, height, width)`` of the crops, float32, values 0..255, on the same device.
    """
    # Only the visible part becomes float: a whole frame would take four times its size each time.
    left, top, right, bottom = window_around(regions, image.shape[1], image.shape[0])
    seen = image[top:bottom, left:right].permute(2, 0, 1)[None].float()
    matrices = move_matrices(invert_matrices(image_to_crop_matrices(regions)), (-left, -top))
    width, height = regions.view.input_size
    return warp_tensor(
        seen.expand(len(regions), -1, -1, -1),
        torch.from_numpy(matrices).to(image.device, torch.float32),
        (height, width),
    )


def warp_tensor(images: Tensor, matrices: Tensor, size: tuple[int, int]) -> Tensor:
    """One affine map per image, sampled bilinearly, black outside.

    Args:
        images: ``(B, C, H, W)`` float.
        matrices: ``(B, 2, 3)``, from output pixels to input pixels (xy, pixel centres whole).
        size: Height and width of the output.

    Returns:
        ``(B, C, *size)``.
    """
    height, width = images.shape[2:]
    rows = torch.arange(size[0], device=images.device, dtype=torch.float32)
    columns = torch.arange(size[1], device=images.device, dtype=torch.float32)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack((x, y, torch.ones_like(x)), dim=2).reshape(1, -1, 3)
    source = (points @ matrices.float().transpose(1, 2)).reshape(-1, *size, 2)
    # grid_sample counts from the image's edge: -1 is the left edge of pixel 0. Filled on the
    # device: copying two numbers there would wait for all previously queued work.
    extent = torch.cat((rows.new_full((1,), width), rows.new_full((1,), height)))
    grid = (2 * source + 1) / extent - 1
    return F.grid_sample(
        images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )
