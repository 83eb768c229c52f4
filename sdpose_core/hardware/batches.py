"""Any number of crops in batches of the sizes that a backend prefers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def run_in_batches(
    run: Callable[[Tensor], Tensor], items: Tensor, sizes: Sequence[int], *, pads: bool
) -> Tensor:
    """Results of ``run`` for each of ``items`` (N, ...), N at least 1, in batches of ``sizes``.

    ``sizes`` are the allowed batch sizes, ascending, from 1; ``pads`` as in ``split_batch``.
    """
    parts = []
    start = 0
    for size in split_batch(len(items), sizes, pads=pads):
        part = items[start : start + size]
        start += size
        if len(part) < size:
            filler = part.new_zeros((size - len(part), *part.shape[1:]))
            parts.append(run(torch.cat((part, filler)))[: len(part)])
        else:
            parts.append(run(part))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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
