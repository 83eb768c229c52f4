"""Lite-HRNet with its channel shuffles folded into convolutions."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdpose_core.model import Student
from sdpose_core.model.backbones.lite_hrnet import FusionModule, ShuffleUnit


class FoldedUnit(nn.Module):
    """Equivalent of a ``ShuffleUnit`` without splitting, joining or shuffling channels.

    Those only move memory, and took half of the backbone's time in bf16. Here the layers read and
    write all channels, with zero weights for the unused channels, and another 1x1 layer of ones and
    zeros moves the untouched half to its new positions. That is more arithmetic for bit-identical
    results, in bf16 too, and the processor has capacity to spare.

    The last ReLU also applies to the untouched half, so inputs must not be negative: those of
    Lite-HRNet's units come from a ReLU.
    """

    def __init__(self, unit: ShuffleUnit) -> None:
        super().__init__()
        reduce, _, self.spatial, expand, _ = unit.branch
        assert isinstance(reduce, nn.Conv2d)
        assert isinstance(expand, nn.Conv2d)
        half = reduce.in_channels
        self.reduce = nn.Conv2d(2 * half, half, 1)
        self.expand = nn.Conv2d(half, 2 * half, 1)
        self.carry = nn.Conv2d(2 * half, 2 * half, 1, bias=False)
        assert reduce.bias is not None
        assert expand.bias is not None
        assert self.reduce.bias is not None
        assert self.expand.bias is not None
        with torch.no_grad():
            for layer in (self.reduce, self.expand, self.carry):
                layer.weight.zero_()
            self.expand.bias.zero_()
            self.reduce.bias.copy_(reduce.bias)
            self.reduce.weight[:, half:] = reduce.weight
            # After the shuffle even channels are untouched, odd ones changed.
            self.expand.weight[1::2] = expand.weight
            self.expand.bias[1::2] = expand.bias
            channels = torch.arange(half)
            self.carry.weight[2 * channels, channels] = 1

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, H, W)`` to the same shape."""
        changed = self.expand(self.spatial(F.relu(self.reduce(x))))
        return F.relu(changed + self.carry(x))


def has_shuffles(student: Student) -> bool:
    """Whether there is anything to fold."""
    return any(isinstance(module, FusionModule) for module in student.modules())


def folded(student: Student) -> Student:
    """A copy equivalent to ``student`` without shuffle units; other networks unchanged.

    Args:
        student: In evaluation mode.
    """
    if not has_shuffles(student):
        return student
    student = copy.deepcopy(student)
    for module in student.modules():
        if isinstance(module, FusionModule):
            for branch in module.branches:
                assert isinstance(branch, nn.Sequential)
                for number, unit in enumerate(branch):
                    assert isinstance(unit, ShuffleUnit)
                    branch[number] = FoldedUnit(unit)
    return student


def folding_pays(precision: str) -> bool:
    """Whether the folded network is the faster one here.

    With AVX-512 it takes 0.7 to 0.9 of the time in bf16 (Xeon and EPYC). In fp32 it depends: 0.87
    to 0.93 on a Xeon, 0.93 at batch 1 and 1.22 at batch 8 on an EPYC. With AVX2 there is no
    difference, and an ARM was not measured.
    """
    return precision == "bf16" and bool(torch.cpu.get_capabilities().get("avx512_f"))
