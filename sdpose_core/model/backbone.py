"""The convolutional parts: StemNet, and HRNet-W32 without its fourth stage.

Module names are those of the published checkpoints (the usual ResNet and HRNet names), so
that ``backbone.*`` keys load as they are. Both take normalised images and return a feature map
at a quarter of their size.
"""

from __future__ import annotations

from torch import Tensor, nn

from sdpose_core.model.config import BackboneName

EXPANSION = 4
HRNET_WIDTHS = (32, 64, 128)


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch norm and, unless told otherwise, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3, 1x1 block; the output has four times ``planes`` channels."""

    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__()
        outputs = planes * EXPANSION
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = conv_bn(inputs, outputs, 1, relu=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, 4 * planes, H, W)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + shortcut)  # type: ignore[no-any-return]


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


class StemNet(nn.Module):
    """Two stride-2 convolutions and four bottlenecks (``layer1``)."""

    def __init__(self, planes: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.out_channels = planes * EXPANSION
        self.layer1 = nn.Sequential(
            Bottleneck(64, planes), *(Bottleneck(self.out_channels, planes) for _ in range(3))
        )

    def stem(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, 4 * planes, H/4, W/4)``."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.layer1(x)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, out_channels, H/4, W/4)``."""
        return self.stem(images)


class ExchangeModule(nn.Module):
    """One HRNet module: four basic blocks a branch, then every branch hears every other.

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
        # A new, coarser branch starts from the coarsest one there is.
        sources = [*branches, branches[-1]]
        branches = [step(x) for step, x in zip(self.transition2, sources, strict=True)]
        finest: Tensor = self.stage3(branches)[0]
        return finest


def build_backbone(name: BackboneName, stage1_planes: int) -> StemNet:
    """The backbone of a config, with random weights."""
    if name == "stemnet":
        return StemNet()
    if name == "hrnet-w32":
        return HRNetW32(stage1_planes)
    raise ValueError(f"unknown backbone {name!r}: expected 'stemnet' or 'hrnet-w32'")
