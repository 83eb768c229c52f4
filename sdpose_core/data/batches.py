"""From a crop set to training batches: sample order, and decoding ahead of the step.

The order of samples is a function of the seed and of the number of samples already seen, so a
resumed run continues with exactly the samples it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdpose_core.ahead import ahead
from sdpose_core.data.shards import CropSet

Made = TypeVar("Made")
AHEAD: Final = 3
"""Minimum number of batches in progress besides the one in use."""


@dataclass(frozen=True)
class CropBatch:
    """Samples of one batch.

    ``images`` (B, H, W, 3) uint8 RGB; ``keypoints`` (B, K, 3) in pixels of those images;
    ``indices`` (B,), the samples' indices in their set. A batch that is not decoded, since its
    images are already on a device, has B images without pixels.
    """

    images: NDArray[np.uint8]
    keypoints: NDArray[np.float32]
    indices: NDArray[np.int64]


def sample_weights(crops: CropSet, by_source: Mapping[str, float]) -> NDArray[np.float64]:
    """How often each sample is shown in one pass over the set: (N,), 1 = once.

    ``by_source`` gives the factor of a source (1 when not named).
    """
    return np.array([by_source.get(source, 1.0) for source in crops.sources], np.float64)


class SampleStream:
    """An endless, seeded order of sample indices with random access by position.

    One pass has ``pass_length`` = round(sum of weights) positions. Within a pass a sample of
    weight w appears floor(w) or ceil(w) times (systematic resampling), in random order.
    """

    def __init__(self, weights: NDArray[np.float64], seed: int) -> None:
        if weights.ndim != 1 or not len(weights) or not np.all(weights >= 0):
            raise ValueError("weights must be a non-empty vector of values >= 0")
        self.pass_length = round(float(weights.sum()))
        if self.pass_length < 1:
            raise ValueError("the weights sum to less than one sample per pass")
        self._edges = np.cumsum(weights) * (self.pass_length / weights.sum())
        self._seed = seed
        self._held: tuple[int, NDArray[np.int64]] | None = None

    def _order(self, number: int) -> NDArray[np.int64]:
        if self._held is None or self._held[0] != number:
            rng = np.random.default_rng((self._seed, 1, number))
            points = np.arange(self.pass_length) + rng.uniform()
            chosen = np.searchsorted(self._edges, points, side="right")
            chosen = np.minimum(chosen, len(self._edges) - 1)
            self._held = (number, rng.permutation(chosen).astype(np.int64))
        return self._held[1]

    def take(self, start: int, count: int) -> NDArray[np.int64]:
        """Sample indices at positions ``start .. start + count - 1``: (count,)."""
        parts: list[NDArray[np.int64]] = []
        while count > 0:
            number, offset = divmod(start, self.pass_length)
            part = self._order(number)[offset : offset + count]
            parts.append(part)
            start += len(part)
            count -= len(part)
        return np.concatenate(parts)


def load_batch(crops: CropSet, indices: NDArray[np.int64]) -> CropBatch:
    """Decode the samples of one batch.

    Raises ``ValueError`` when one does not decode or differs in size from the first.
    """
    images = [crops.decode(int(i)) for i in indices]
    for index, image in zip(indices, images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"sample {index} of source {crops.sources[index]!r}: image of shape {image.shape}, "
                f"sample {indices[0]} has {images[0].shape}: all of a run must be of one size"
            )
    return _batch(crops, indices, np.stack(images))


def _batch(crops: CropSet, indices: NDArray[np.int64], images: NDArray[np.uint8]) -> CropBatch:
    return CropBatch(images, crops.keypoints[indices], indices)


def iterate_batches(
    crops: CropSet,
    stream: SampleStream,
    *,
    start: int,
    batch_size: int,
    make: Callable[[CropBatch, int], Made],
    rank: int = 0,
    world: int = 1,
    workers: int = 1,
    decode: bool = True,
) -> Generator[Made, None, None]:
    """Endless batches from position ``start`` of the stream, decoded ahead by threads.

    ``batch_size`` is per process; of each global batch process ``rank`` of ``world`` takes every
    ``world``-th sample. ``make`` turns a decoded batch and its number (0 for the first) into what
    is yielded; it runs in the decoding thread. Each of ``workers`` threads works on one batch, and
    at least ``AHEAD`` are in progress besides the one being yielded. With ``workers`` = 0
    everything runs in the calling thread. Without ``decode`` the batches have no pixels.
    """
    total = batch_size * world

    def positions() -> Iterator[tuple[int, NDArray[np.int64]]]:
        for number in count():
            yield number, stream.take(start + number * total, total)[rank::world]

    def load(position: tuple[int, NDArray[np.int64]]) -> Made:
        number, chosen = position
        if decode:
            return make(load_batch(crops, chosen), number)
        return make(_batch(crops, chosen, np.zeros((len(chosen), 0, 0, 3), np.uint8)), number)

    limit = max(AHEAD, workers) + 1
    # The stream keeps the current pass: ``ahead`` reads it in one thread.
    return ahead(load, positions(), workers=workers, limit=limit, name="decode")
