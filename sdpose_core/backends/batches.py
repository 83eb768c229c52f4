"""Any number of crops in batches of the sizes that a backend prefers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdpose_core.backends.protocol import PoseBackend


def run_in_batches(
    backend: PoseBackend, crops: Tensor, cycles: int, sizes: Sequence[int]
) -> Tensor:
    """Heatmaps ``(N, 17, height, width)`` of crops ``(N, 3, height, width)``, N at least 1.

    ``sizes`` are the allowed batch sizes, ascending, from 1.
    """
    parts = []
    start = 0
    for size in split_batch(len(crops), sizes, pads=backend.pads):
        part = crops[start : start + size]
        start += size
        if len(part) < size:
            filler = part.new_zeros((size - len(part), *part.shape[1:]))
            parts.append(backend.run(torch.cat((part, filler)), cycles)[: len(part)])
        else:
            parts.append(backend.run(part, cycles))
    return torch.cat(parts)


def split_batch(count: int, sizes: Sequence[int], *, pads: bool) -> list[int]:
    """Batches from ``sizes`` (ascending, from 1) that hold ``count`` items.

    The largest as often as it fits; the rest in one batch of the next size up if it ``pads``, else
    in progressively smaller ones.
    """
    batches = [sizes[-1]] * (count // sizes[-1])
    rest = count % sizes[-1]
    while rest:
        size = next(s for s in sizes if s >= rest) if pads else max(s for s in sizes if s <= rest)
        batches.append(size)
        rest = max(0, rest - size)
    return batches
