"""CSPNeXt-s (RTMDet, arXiv 2212.07784; RTMPose, arXiv 2303.07399), reduced to stride 8.

Four stages of cross-stage blocks with 5x5 depthwise convolutions and channel attention, then the
coarse maps are added into the finer ones from the top down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdpose_core.skeleton import NUM_KEYPOINTS

WIDTHS = (32, 64, 128, 256, 512)
"""Channels after the stem and after each stage."""
BLOCKS = (1, 2, 2, 1)
OUT_CHANNELS = 96
POOLS = (5, 9, 13)


def conv_bn(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm and SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class Block(nn.Module):
    """3x3, depthwise 5x5 and 1x1, with a residual where ``residual``."""

    def __init__(self, width: int, residual: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(width, width, 3), conv_bn(width, width, 5, groups=width), conv_bn(width, width)
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` to the same shape."""
        return x + self.body(x) if self.residual else self.body(x)  # type: ignore[no-any-return]


class CrossStage(nn.Module):
    """Half of the channels through the blocks, half bypassing them; channel attention over both."""

    def __init__(self, width: int, count: int, residual: bool) -> None:
        super().__init__()
        half = width // 2
        self.main, self.past = conv_bn(width, half), conv_bn(width, half)
        self.blocks = nn.Sequential(*(Block(half, residual) for _ in range(count)))
        self.attention = nn.Conv2d(width, width, 1)
        self.final = conv_bn(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` to the same shape."""
        x = torch.cat((self.blocks(self.main(x)), self.past(x)), dim=1)
        gate = F.hardsigmoid(self.attention(x.mean(dim=(2, 3), keepdim=True)))
        return self.final(x * gate)  # type: ignore[no-any-return]


class PyramidPool(nn.Module):
    """Spatial pyramid pooling (arXiv 1406.4729) at the coarsest map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.merge = conv_bn(width, width // 2), conv_bn(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` to the same shape."""
        x = self.reduce(x)
        pooled = [F.max_pool2d(x, size, 1, size // 2) for size in POOLS]
        return self.merge(torch.cat((x, *pooled), dim=1))  # type: ignore[no-any-return]


class CSPNeXt(nn.Module):
    """``(B, 3, H, W)`` to ``(B, 96, H/8, W/8)``; ``heatmaps`` makes Gaussians at H/4 from them."""

    def __init__(self, keypoints: int = NUM_KEYPOINTS) -> None:
        super().__init__()
        first = WIDTHS[0] // 2
        self.stem = nn.Sequential(
            conv_bn(3, first, 3, 2), conv_bn(first, first, 3), conv_bn(first, WIDTHS[0], 3)
        )
        stages: list[nn.Module] = []
        for number, count in enumerate(BLOCKS):
            width, last = WIDTHS[number + 1], number == len(BLOCKS) - 1
            stages.append(
                nn.Sequential(
                    conv_bn(WIDTHS[number], width, 3, 2),
                    *([PyramidPool(width)] if last else []),
                    CrossStage(width, count, residual=not last),
                )
            )
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList(conv_bn(width, OUT_CHANNELS) for width in WIDTHS[2:])
        self.smooth = nn.ModuleList(
            nn.Sequential(conv_bn(OUT_CHANNELS, OUT_CHANNELS, 5, groups=OUT_CHANNELS),
                          conv_bn(OUT_CHANNELS, OUT_CHANNELS))
            for _ in WIDTHS[3:]
        )  # fmt: skip
        # Each feature pixel predicts the 2x2 heatmap pixels it covers.
        self.final = nn.Conv2d(OUT_CHANNELS, 4 * keypoints, 1)
        self.out_channels = OUT_CHANNELS

    def forward(self, images: Tensor) -> Tensor:
        """Features, see the class."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = self.lateral[-1](maps[-1])
        for number in (1, 0):
            fine = self.lateral[number](maps[number + 1])
            coarse = F.interpolate(x, fine.shape[2:], mode="nearest")
            x = self.smooth[number](fine + coarse)
        assert isinstance(x, Tensor)
        return x

    def heatmaps(self, features: Tensor) -> Tensor:
        """``(B, 96, H/8, W/8)`` to ``(B, 17, H/4, W/4)``."""
        return F.pixel_shuffle(self.final(features), 2)
