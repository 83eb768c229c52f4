"""HRNet-W32 (arXiv 1908.07919) without its fourth stage, the backbone of SDPose-B.

Module names are those of the published checkpoints (the usual HRNet names), so that ``backbone.*``
keys load unchanged.
"""

from __future__ import annotations

from torch import Tensor, nn

from sdpose_core.model.backbones.stemnet import StemNet, conv_bn

HRNET_WIDTHS = (32, 64, 128)


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions, as many channels out as in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, H, W)`` to the same shape."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)  # type: ignore[no-any-return]


class ExchangeModule(nn.Module):
    """One HRNet module: four basic blocks per branch, then all branches exchange features.

    ``outputs`` branches come out; the last module of the network keeps only the finest.
    """

    def __init__(self, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(4))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse(widths, source, target) for source in range(len(widths)))
            for target in range(outputs)
        )
        self.relu = nn.ReLU(inplace=False)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Maps from fine to coarse, each half as large as the one before."""
        branches = [branch(x) for branch, x in zip(self.branches, branches, strict=True)]
        fused = []
        for layers in self.fuse_layers:
            assert isinstance(layers, nn.ModuleList)
            parts = [layer(x) for layer, x in zip(layers, branches, strict=True)]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            fused.append(self.relu(total))
        return fused


def _fuse(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
    """The path from branch ``source`` to branch ``target`` of an exchange."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            *conv_bn(widths[source], widths[target], 1, relu=False),
            nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"),
        )
    steps = [conv_bn(widths[source], widths[source], stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, conv_bn(widths[source], widths[target], stride=2, relu=False))


class HRNetW32(StemNet):
    """HRNet-W32's first three stages; the finest branch comes out."""

    def __init__(self, stage1_planes: int = 32) -> None:
        super().__init__(stage1_planes)
        one, two, three = HRNET_WIDTHS
        stage1 = self.out_channels
        self.transition1 = nn.ModuleList(
            [conv_bn(stage1, one), nn.Sequential(conv_bn(stage1, two, stride=2))]
        )
        self.stage2 = nn.Sequential(ExchangeModule((one, two), 2))
        self.transition2 = nn.ModuleList(
            [nn.Identity(), nn.Identity(), nn.Sequential(conv_bn(two, three, stride=2))]
        )
        self.stage3 = nn.Sequential(
            *(ExchangeModule(HRNET_WIDTHS, 3) for _ in range(3)), ExchangeModule(HRNET_WIDTHS, 1)
        )
        self.out_channels = one

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, 32, H/4, W/4)``."""
        x = self.stem(images)
        branches = [transition(x) for transition in self.transition1]
        branches = self.stage2(branches)
        # A new, coarser branch starts from the coarsest existing one.
        sources = [*branches, branches[-1]]
        branches = [step(x) for step, x in zip(self.transition2, sources, strict=True)]
        finest: Tensor = self.stage3(branches)[0]
        return finest
