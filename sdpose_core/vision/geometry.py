"""Coordinates: the only place where they are converted.

Three spaces, all in xy order, all with (0, 0) at the centre of the top-left pixel:

- image: pixels of the original image;
- crop: pixels of the view of one person that the student sees (192x256, width x height, for the
  published ones);
- heatmap: pixels of the map that it outputs (48x64). A heatmap pixel is ``n`` crop pixels:
  ``crop = n * heatmap``, without a half-pixel shift. The published students use this convention, so
  their scores need it.

The sizes are those of the student, in a ``ViewGeometry`` that its regions carry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdpose_core.types import PUBLISHED_VIEW, Floats, Regions, ViewGeometry, check_boxes


def regions_from_boxes(boxes: ArrayLike, view: ViewGeometry = PUBLISHED_VIEW) -> Regions:
    """The view of each box: grown to the crop's aspect about its centre, then by the padding.

    Args:
        boxes: ``(N, 4)`` xyxy in image pixels; they may lie partly or wholly outside.

    Raises:
        ValueError: a box that is not finite or has no area.
    """
    xyxy = check_boxes(boxes).astype(np.float64)
    centres = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    width, height = (xyxy[:, 2:] - xyxy[:, :2]).T
    aspect = view.input_size[0] / view.input_size[1]
    width, height = np.maximum(width, height * aspect), np.maximum(height, width / aspect)
    sizes = np.stack((width, height), axis=1) * view.padding
    return Regions(centres.astype(np.float32), sizes.astype(np.float32), view)


def image_to_crop_matrices(
    regions: Regions, rotations: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Affine maps ``(N, 2, 3)`` from image to crop pixels.

    Args:
        rotations: ``(N,)`` degrees by which each view is rotated in the image, clockwise on screen;
            0 if not given.
    """
    turns = np.zeros(len(regions)) if rotations is None else np.asarray(rotations, np.float64)
    scale = regions.view.input_size[0] / regions.sizes[:, 0].astype(np.float64)
    cosine, sine = scale * np.cos(np.deg2rad(turns)), scale * np.sin(np.deg2rad(turns))
    linear = np.stack((cosine, sine, -sine, cosine), axis=1).reshape(-1, 2, 2)
    middle = np.array(regions.view.input_size, np.float64) / 2
    shift = middle - np.einsum("nij,nj->ni", linear, regions.centres.astype(np.float64))
    return np.concatenate((linear, shift[:, :, None]), axis=2)


def invert_matrices(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverses of affine maps ``(N, 2, 3)``."""
    linear = np.linalg.inv(matrices[:, :, :2])
    shift = -np.einsum("nij,nj->ni", linear, matrices[:, :, 2])
    return np.concatenate((linear, shift[:, :, None]), axis=2)


def move_matrices(matrices: NDArray[np.float64], by: tuple[int, int]) -> NDArray[np.float64]:
    """Affine maps ``(N, 2, 3)`` with results shifted by ``by`` (xy)."""
    moved = matrices.copy()
    moved[:, :, 2] += by
    return moved


def window_around(regions: Regions, width: int, height: int) -> tuple[int, int, int, int]:
    """The part of an image that holds all pixels from which crops of ``regions`` are sampled.

    Returns:
        Left, top, right and bottom, whole pixels, the last two exclusive; at least one pixel.
    """
    if not len(regions):
        return 0, 0, 1, 1
    # Bilinear sampling reaches one pixel beyond the view; the other allows for rounding.
    low = np.floor((regions.centres - regions.sizes / 2).min(axis=0)) - 2
    high = np.ceil((regions.centres + regions.sizes / 2).max(axis=0)) + 3
    left, top = (int(side) for side in np.clip(low, 0, (width - 1, height - 1)))
    right, bottom = (int(side) for side in np.clip(high, (left + 1, top + 1), (width, height)))
    return left, top, right, bottom


def apply_matrices(matrices: NDArray[np.float64], points: ArrayLike) -> NDArray[np.float64]:
    """Points ``(N, K, 2)`` through the affine maps ``(N, 2, 3)``, one per row of points."""
    xy = np.asarray(points, np.float64)
    moved: NDArray[np.float64] = np.einsum("nij,nkj->nki", matrices[:, :, :2], xy)
    return moved + matrices[:, None, :, 2]


def heatmap_to_image(points: ArrayLike, regions: Regions) -> Floats:
    """Points ``(N, K, 2)`` from heatmap pixels to image pixels, for views that are not rotated."""
    xy = np.asarray(points, np.float32)
    step = regions.sizes / np.array(regions.view.heatmap_size, np.float32)
    corner = regions.centres - regions.sizes / 2
    result: Floats = (xy * step[:, None] + corner[:, None]).astype(np.float32)
    return result


def image_to_heatmap(points: ArrayLike, regions: Regions) -> Floats:
    """The inverse of ``heatmap_to_image``."""
    xy = np.asarray(points, np.float32)
    step = regions.sizes / np.array(regions.view.heatmap_size, np.float32)
    corner = regions.centres - regions.sizes / 2
    result: Floats = ((xy - corner[:, None]) / step[:, None]).astype(np.float32)
    return result


def box_sides(boxes: Floats) -> Floats:
    """Root of the area ``(N,)`` of boxes ``(N, 4)`` xyxy, pixels."""
    return np.asarray(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), np.float32)


def shared_areas(boxes: Floats, others: Floats) -> Floats:
    """Intersection of every box ``(N, 4)`` xyxy with every other ``(M, 4)``: areas ``(N, M)``."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=2), np.float32)


def box_overlaps(boxes: Floats, others: Floats) -> Floats:
    """Intersection over union of every box ``(N, 4)`` xyxy with every other ``(M, 4)``, (N, M)."""
    shared = shared_areas(boxes, others)
    areas, other_areas = ((one[:, 2:] - one[:, :2]).prod(axis=1) for one in (boxes, others))
    union = areas[:, None] + other_areas[None] - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float32).tiny), np.float32)
