"""From heatmaps on their device to keypoints and scores in image pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sdpose_core.hardware.backends import PoseBackend
from sdpose_core.hardware.batches import run_in_batches
from sdpose_core.model import JointReader, ScoreHead
from sdpose_core.types import Joints, Regions
from sdpose_core.vision.geometry import heatmap_to_image


class KeypointDecoder:
    """Reads joints off heatmaps. Any number of threads may call it.

    Args:
        backend: Where the heatmaps are; it runs the decoding in its own way.
        batch_sizes: Ascending from 1; if the backend ``pads``, heatmaps are padded to them.
        scores: As in ``PoseEstimator``.
        max_refinement: As in ``decode_tensor``; with None the peaks are scores above 1, too.
    """

    def __init__(
        self,
        backend: PoseBackend,
        batch_sizes: Sequence[int],
        *,
        scores: ScoreHead | None,
        max_refinement: float | None,
    ) -> None:
        self._read = backend.reader(JointReader(scores, max_refinement).eval())
        self._batch_sizes = batch_sizes if backend.pads else None
        self._limited = scores is None and max_refinement is not None

    def __call__(self, heatmaps: Tensor, regions: Regions) -> Joints:
        """The joints of N people.

        ``heatmaps`` ``(N, K, height, width)``, N at least 1; ``regions`` are their N views.
        """
        if self._batch_sizes is None:
            found = self._read(heatmaps)
        else:
            found = run_in_batches(self._read, heatmaps, self._batch_sizes, pads=True)
        values = found.cpu().numpy()
        scores = values[..., 2]
        if self._limited:
            scores = np.clip(scores, 0, 1)
        visibility = values[..., 3] if values.shape[2] > 3 else None
        return Joints(heatmap_to_image(values[..., :2], regions), scores, visibility)
