"""Context crops decoded once and held on a device, where training views are rendered."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdpose_core.ahead import ahead
from sdpose_core.data.batches import load_batch
from sdpose_core.data.shards import CropSet

CHUNK = 256
"""Crops that are decoded and copied together."""
FREE_SHARE = 0.7
"""Share of a GPU's free memory that crops may use; the rest is for the network."""


def hold(crops: CropSet, device: torch.device, workers: int = 4) -> Tensor:
    """Every crop of a set: (N, H, W, 3) uint8 RGB on ``device``.

    A context crop of 269x358 takes 289 kB there, 100 thousand take 29 GB. ``workers`` threads
    decode; the order is that of the set.

    Raises:
        ValueError: a crop that does not decode or differs in size, or too many for the device.
    """
    height, width = crops.decode(0).shape[:2]
    shape = (len(crops), height, width, 3)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if np.prod(shape, dtype=np.int64) > FREE_SHARE * free:
            raise ValueError(
                f"data.on_device: {len(crops)} crops take {np.prod(shape) / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} are free on {device} and the network needs some: "
                "set data.on_device to false"
            )
    held = torch.empty(shape, dtype=torch.uint8, device=device)
    chunks = [np.arange(i, min(i + CHUNK, len(crops))) for i in range(0, len(crops), CHUNK)]
    batches = ahead(
        lambda chunk: load_batch(crops, chunk),
        chunks,
        workers=workers,
        limit=2 * workers + 1,
        name="decode",
    )
    for part, batch in zip(chunks, batches, strict=True):
        if batch.images.shape[1:] != shape[1:]:
            raise ValueError(
                f"sample {part[0]} of source {crops.sources[part[0]]!r}: image of shape "
                f"{batch.images.shape[1:]}, sample 0 has {shape[1:]}: all of a run must be of "
                "one size"
            )
        held[int(part[0]) : int(part[-1]) + 1] = torch.from_numpy(batch.images).to(device)
    return held
