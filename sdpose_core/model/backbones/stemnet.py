"""StemNet, the backbone of SDPose-T and S (CVPR 2024, arXiv 2404.03518).

Module names are those of the published checkpoints (the usual ResNet names), so that ``backbone.*``
keys load unchanged.
"""

from __future__ import annotations

from torch import Tensor, nn

EXPANSION = 4


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch norm and, by default, ReLU."""
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
