"""From heatmaps on their device to keypoints and scores in image pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdpose_core.batches import run_in_batches
from sdpose_core.calibration import ScoreCalibration
from sdpose_core.cuda_graphs import GraphedCalls
from sdpose_core.geometry import heatmap_to_image
from sdpose_core.heatmaps import decode_tensor
from sdpose_core.model import ScoreHead
from sdpose_core.types import Floats, Regions


class KeypointDecoder:
    """Reads joints off heatmaps. Any number of threads may call it.

    On a GPU, decoding is some forty small operations, whose launches would take longer than the
    work: it is replayed from a CUDA graph.

    Args:
        device: Where the heatmaps are.
        batch_sizes: Ascending from 1; on a GPU heatmaps are padded to one of them.
        scores: As in ``PoseEstimator``.
        calibration: As in ``PoseEstimator``.
        max_refinement: As in ``decode_tensor``.
    """

    def __init__(
        self,
        device: torch.device,
        batch_sizes: Sequence[int],
        *,
        scores: ScoreHead | None,
        calibration: ScoreCalibration,
        max_refinement: float | None,
    ) -> None:
        self._scores = None if scores is None else scores.to(device)
        self._calibration = calibration
        self._max_refinement = max_refinement
        self._batch_sizes = batch_sizes
        self._replay = GraphedCalls(self._decode) if device.type == "cuda" else None

    def __call__(self, heatmaps: Tensor, regions: Regions) -> tuple[Floats, Floats]:
        """Keypoints ``(N, 17, 2)`` in image pixels and scores ``(N, 17)``.

        ``heatmaps`` ``(N, 17, height, width)``, N at least 1; ``regions`` are their N views.
        """
        if self._replay is None:
            found = self._decode(heatmaps)
        else:
            found = run_in_batches(self._replay, heatmaps, self._batch_sizes, pads=True)
        values = found.cpu().numpy()
        scores = values[..., 2]
        if self._scores is None:
            scores = self._calibration(scores)
        return heatmap_to_image(values[..., :2], regions), scores

    @torch.inference_mode()
    def _decode(self, heatmaps: Tensor) -> Tensor:
        """x, y and score of each joint, ``(N, 17, 3)``: one tensor, so one copy to the host.

        The score is the peak if there is no score head.
        """
        points, scores = decode_tensor(heatmaps, self._max_refinement)
        if self._scores is not None:
            scores = self._scores(points, scores)
        return torch.cat((points, scores[..., None]), dim=2)
