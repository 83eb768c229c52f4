"""Training views: random choices on the host, one affine per sample on the device.

The order and the distributions are those of the published code (mmpose 0.29): shift, flip, half
body, scale and rotation, then one warp. Choices are drawn with numpy from a generator that the
caller seeds per step, so a step always gives the same views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from torch import Tensor

from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.types import PUBLISHED_VIEW, Regions, ViewGeometry
from sdpose_core.vision.crops import warp_tensor
from sdpose_core.vision.geometry import image_to_crop_matrices


@dataclass(frozen=True)
class AugmentConfig:
    """How views are drawn. The defaults are those of the published code.

    ``shift``: largest shift per axis in units of the view's size. ``scale_factor``: standard
    deviation of the view's relative size, clipped to 1 +- the factor. ``rotation``: standard
    deviation of the rotation in degrees, clipped to twice that. ``half_body_upper``: chance that
    the upper body is chosen (the published code intends 0.5 but has 0.69 by mistake). ``colour``:
    largest relative change of brightness and contrast (0 in the published code).
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # for recipes from files

    shift_probability: float = 0.3
    shift: float = 0.16
    flip_probability: float = 0.5
    half_body_probability: float = 0.3
    half_body_joints: int = 8
    half_body_upper: float = 0.69
    half_body_padding: float = 1.5
    scale_factor: float = 0.35
    rotation_probability: float = 0.6
    rotation: float = 45.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "shift_probability",
            "flip_probability",
            "half_body_probability",
            "half_body_upper",
            "rotation_probability",
        ):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"augment.{name}: expected 0..1, got {value}")
        if not 0 <= self.scale_factor < 1:
            raise ValueError(f"augment.scale_factor: expected 0..1, got {self.scale_factor}")

    @classmethod
    def none(cls) -> AugmentConfig:
        """Every view unchanged, without random choices."""
        return cls(
            shift_probability=0,
            flip_probability=0,
            half_body_probability=0,
            scale_factor=0,
            rotation_probability=0,
        )


@dataclass(frozen=True)
class Views:
    """One training view per sample.

    ``to_image`` (B, 2, 3) maps crop pixels (192x256) to pixels of the source image; ``joints`` (B,
    17, 2) are crop pixels; ``confidence`` (B, K), both already mirrored where ``flipped`` (B,).
    ``gain`` and ``lift`` (B,) are the colour change: value * gain + lift.
    """

    to_image: NDArray[np.float32]
    joints: NDArray[np.float32]
    confidence: NDArray[np.float32]
    flipped: NDArray[np.bool_]
    gain: NDArray[np.float32]
    lift: NDArray[np.float32]


def draw_views(
    keypoints: NDArray[np.float32],
    regions: Regions,
    image_size: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
    skeleton: Skeleton = COCO17,
) -> Views:
    """Draw one view per sample.

    ``keypoints`` (B, K, 3) x, y, confidence in pixels of images of ``image_size`` (width, height);
    ``regions`` are the persons' padded 3:4 views in the same pixels; ``skeleton`` names the joints.
    """
    count = len(keypoints)
    joints = keypoints[..., :2].astype(np.float64)
    confidence = keypoints[..., 2].copy()
    centres = regions.centres.astype(np.float64)
    sizes = regions.sizes.astype(np.float64)

    shifted = rng.uniform(size=count) < config.shift_probability
    offset = rng.uniform(-1, 1, size=(count, 2)) * config.shift * sizes
    centres = np.where(shifted[:, None], centres + offset, centres)

    flipped = rng.uniform(size=count) < config.flip_probability
    width = image_size[0]
    joints[flipped, :, 0] = width - 1 - joints[flipped, :, 0]
    swap = list(skeleton.mirror)
    joints[flipped] = joints[flipped][:, swap]
    confidence[flipped] = confidence[flipped][:, swap]
    centres[flipped, 0] = width - 1 - centres[flipped, 0]

    wants_half = rng.uniform(size=count) < config.half_body_probability
    wants_upper = rng.uniform(size=count) < config.half_body_upper
    enough = (confidence > 0).sum(axis=1) > config.half_body_joints
    for i in np.flatnonzero(wants_half & enough):
        half = half_body(
            joints[i], confidence[i] > 0, bool(wants_upper[i]), config, regions.view, skeleton
        )
        if half is not None:
            centres[i], sizes[i] = half

    factor = np.clip(
        rng.standard_normal(count) * config.scale_factor + 1,
        1 - config.scale_factor,
        1 + config.scale_factor,
    )
    turned = rng.uniform(size=count) < config.rotation_probability
    angle = np.clip(
        rng.standard_normal(count) * config.rotation, -2 * config.rotation, 2 * config.rotation
    )
    angle = np.where(turned, angle, 0.0)
    views = Regions(
        centres.astype(np.float32), (sizes * factor[:, None]).astype(np.float32), regions.view
    )
    forward = image_to_crop_matrices(views, angle).astype(np.float64)
    placed = joints @ forward[:, :, :2].transpose(0, 2, 1) + forward[:, None, :, 2]

    linear = np.linalg.inv(forward[:, :, :2])
    back = np.concatenate([linear, -linear @ forward[:, :, 2:]], axis=2)
    # The mirrored image is never created: its x axis is read backwards.
    back[flipped, 0] *= -1
    back[flipped, 0, 2] += width - 1

    gain = 1 + rng.uniform(-1, 1, size=count) * config.colour
    lift = rng.uniform(-1, 1, size=count) * config.colour * 127.5
    return Views(
        to_image=back.astype(np.float32),
        joints=placed.astype(np.float32),
        confidence=confidence.astype(np.float32),
        flipped=flipped,
        gain=gain.astype(np.float32),
        lift=lift.astype(np.float32),
    )


def half_body(
    joints: NDArray[np.float64],
    visible: NDArray[np.bool_],
    upper: bool,
    config: AugmentConfig,
    view: ViewGeometry = PUBLISHED_VIEW,
    skeleton: Skeleton = COCO17,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Centre (2,) and size (2,) of a view on half of the body; None if there are too few joints.

    The chosen half needs more than two visible joints, else the other half is used. The centre is
    the mean of the chosen joints, the size their extent grown to 3:4 and by the padding.
    """
    top = joints[[j for j in skeleton.upper if visible[j]]]
    bottom = joints[[j for j in skeleton.lower if visible[j]]]
    take_top = (upper and len(top) > 2) or len(bottom) <= 2
    chosen = top if take_top else bottom
    if len(chosen) < 2:
        return None
    size = _grown(chosen.max(axis=0) - chosen.min(axis=0), view)
    return None if size[1] < 1 else (chosen.mean(axis=0), size * config.half_body_padding)


def _grown(size: NDArray[np.float64], view: ViewGeometry) -> NDArray[np.float64]:
    """Width and height (2,) with the smaller enlarged to the view's aspect."""
    aspect = view.input_size[0] / view.input_size[1]
    width, height = size
    return np.array([max(width, aspect * height), max(height, width / aspect)])


def render_views(
    images: Tensor,
    to_image: Tensor,
    gain: Tensor,
    lift: Tensor,
    view: ViewGeometry = PUBLISHED_VIEW,
) -> Tensor:
    """Warp images (B, H, W, 3) uint8 on their device to views (B, 3, height, width), 0..255.

    ``to_image`` (B, 2, 3), ``gain`` and ``lift`` (B,) are those of ``Views``, on the same device.
    Bilinear with a black border; the colour change is applied after the warp.
    """
    width, height = view.input_size
    warped = warp_tensor(images.permute(0, 3, 1, 2).float(), to_image, (height, width))
    return (warped * gain[:, None, None, None] + lift[:, None, None, None]).clamp_(0, 255)
