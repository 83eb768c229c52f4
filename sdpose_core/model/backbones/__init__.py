"""The convolutional parts of a student; a new one is a file here and a line in ``BACKBONES``.

A backbone takes normalised images ``(B, 3, H, W)`` and returns a feature map
``(B, out_channels, ceil(H / STRIDE), ceil(W / STRIDE))``. One with ``own_heatmaps`` also has a
method ``heatmaps`` that makes ``(B, K, ...)`` heatmaps of the same size from that map. One that can
be cut before its last stage has ``early``, ``late`` and ``late_modules``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from torch import nn

from sdpose_core.model.backbones.hrnet import HRNetW32
from sdpose_core.model.backbones.lite_hrnet import LiteHRNet
from sdpose_core.model.backbones.stemnet import StemNet

STRIDE: Final = 4
"""Image pixels per pixel of a backbone's feature map and of its heatmaps."""


class Backbone(NamedTuple):
    """An entry of ``BACKBONES``.

    Attributes:
        build: Makes the module from the config's ``stage1_planes`` and number of keypoints.
        own_heatmaps: Whether it has its own heatmaps, so that a student may run without a cycle.
    """

    build: Callable[[int, int], nn.Module]
    own_heatmaps: bool = False


BACKBONES: Final[dict[str, Backbone]] = {
    "stemnet": Backbone(lambda planes, keypoints: StemNet()),
    "hrnet-w32": Backbone(lambda planes, keypoints: HRNetW32(planes)),
    "lite-hrnet": Backbone(lambda planes, keypoints: LiteHRNet(keypoints), own_heatmaps=True),
}
