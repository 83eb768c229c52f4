"""Lite-HRNet (arXiv 2104.06403), naive and wide, with its own iterative head.

This is the network published as PP-TinyPose (PaddleDetection, Apache-2.0) with batch norm folded
into the convolutions; module names are those of the file that holds its weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (40, 80, 160, 320)
"""Channels of the branches, from a quarter of the image size down to a thirty-second."""
MODULES = (2, 4, 2)
"""Fusion modules of each stage; a stage has one branch more than the one before."""
STEM_CHANNELS = 32


def depthwise(channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3 depthwise."""
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels)


def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    """1x1."""
    return nn.Conv2d(inputs, outputs, 1)


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Depthwise, then pointwise, then ReLU."""
    return nn.Sequential(depthwise(inputs, stride), pointwise(inputs, outputs), nn.ReLU())


def shuffle(x: Tensor) -> Tensor:
    """Interleaves the channels of the two halves (ShuffleNet, arXiv 1707.01083)."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, 2, channels // 2, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class Stem(nn.Module):
    """``(B, 3, H, W)`` to ``(B, 32, H/4, W/4)``."""

    def __init__(self) -> None:
        super().__init__()
        half = STEM_CHANNELS // 2
        self.conv = nn.Conv2d(3, STEM_CHANNELS, 3, 2, 1)
        self.left = separable(half, half, 2)
        self.right = nn.Sequential(
            pointwise(half, STEM_CHANNELS),
            nn.ReLU(),
            depthwise(STEM_CHANNELS, 2),
            pointwise(STEM_CHANNELS, half),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        left, right = F.relu(self.conv(images)).chunk(2, dim=1)
        return shuffle(torch.cat((self.left(left), self.right(right)), dim=1))


class ShuffleUnit(nn.Module):
    """Half of the channels pass through, the other half is changed; then they are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            pointwise(half, half), nn.ReLU(), depthwise(half), pointwise(half, half), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` to the same shape."""
        kept, changed = x.chunk(2, dim=1)
        return shuffle(torch.cat((kept, self.branch(changed)), dim=1))


class FusionModule(nn.Module):
    """Two shuffle units per branch, then all branches exchange features."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(ShuffleUnit(width), ShuffleUnit(width)) for width in widths
        )
        self.fuse = nn.ModuleList(
            nn.ModuleList(_path(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps from fine to coarse, each half as large as the one before; as many come out."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for target, paths in enumerate(self.fuse):
            assert isinstance(paths, nn.ModuleList)
            size = maps[target].shape[2:]
            # The published weights count the first branch twice, and the coarser outputs receive
            # the sum for the finest one in its place: kept, since they were trained that way.
            total = 2 * paths[0](maps[0])
            for source in range(1, len(maps)):
                part = paths[source](maps[source])
                if source > target:
                    part = F.interpolate(part, size, mode="nearest")
                total = total + part
            if target == 0:
                maps = [total, *maps[1:]]
            fused.append(F.relu(total))
        return fused


def _path(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
    """The path from branch ``source`` to branch ``target`` (upsampling left out)."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(pointwise(widths[source], widths[target]))
    layers: list[nn.Module] = []
    for _ in range(target - source - 1):
        layers += [depthwise(widths[source], 2), pointwise(widths[source], widths[source])]
        layers.append(nn.ReLU())
    return nn.Sequential(
        *layers, depthwise(widths[source], 2), pointwise(widths[source], widths[target])
    )


class LiteHRNet(nn.Module):
    """``(B, 3, H, W)`` to features ``(B, 40, H/4, W/4)``; ``heatmaps`` makes its output from them.

    The heatmaps are Gaussians with a peak of about 0.9 on a clear joint.
    """

    def __init__(self, keypoints: int) -> None:
        super().__init__()
        self.stem = Stem()
        self.first = nn.ModuleList(separable(STEM_CHANNELS, WIDTHS[i], i + 1) for i in range(2))
        self.grow = nn.ModuleList(separable(WIDTHS[i + 1], WIDTHS[i + 2], 2) for i in range(2))
        self.stages = nn.ModuleList(
            nn.Sequential(*(FusionModule(WIDTHS[: stage + 2]) for _ in range(count)))
            for stage, count in enumerate(MODULES)
        )
        self.project = nn.ModuleList(
            separable(WIDTHS[level], WIDTHS[max(0, level - 1)]) for level in (3, 2, 1, 0)
        )
        self.final = pointwise(WIDTHS[0], keypoints)
        self.out_channels = WIDTHS[0]

    def forward(self, images: Tensor) -> Tensor:
        """Features, see the class."""
        return self.late(self.early(images))

    def early(self, images: Tensor) -> list[Tensor]:
        """The maps that the last stage takes, from fine to coarse."""
        x = self.stem(images)
        maps = [first(x) for first in self.first]
        for number, grow in enumerate(self.grow):
            maps = self.stages[number](maps)
            maps = [*maps, grow(maps[-1])]
        return maps

    def late(self, maps: list[Tensor]) -> Tensor:
        """Features from the maps of ``early``."""
        *finer, x = self.stages[-1](maps)
        x = self.project[0](x)
        for level, project in zip(reversed(finer), list(self.project)[1:], strict=True):
            coarse = F.interpolate(x, level.shape[2:], mode="bilinear", align_corners=True)
            x = project(level + coarse)
        assert isinstance(x, Tensor)
        return x

    def late_modules(self) -> list[nn.Module]:
        """The modules that ``late`` and ``heatmaps`` run."""
        return [self.stages[-1], self.project, self.final]

    def heatmaps(self, features: Tensor) -> Tensor:
        """``(B, 40, H/4, W/4)`` to ``(B, K, H/4, W/4)``."""
        return self.final(features)  # type: ignore[no-any-return]
