"""Object keypoint similarity, COCO's measure of pose similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdpose_core.types import Floats

Doubles = NDArray[np.float64]


def oks_matrix(
    keypoints: Doubles,
    areas: Doubles,
    others: Doubles,
    other_areas: Doubles,
    sigmas: Sequence[float],
    *,
    weights: Doubles | None = None,
    widen: float = 1.0,
) -> Doubles:
    """Similarity of every pose to every other, 0..1.

    ``mean_k exp(-d_k^2 / (2 s^2 (2 sigma_k)^2))`` with ``s^2`` the mean of the two areas, over all
    joints, as in the reference's suppression.

    Args:
        keypoints: ``(N, K, 2)`` xy pixels.
        areas: ``(N,)`` square pixels.
        others: ``(M, K, 2)``.
        other_areas: ``(M,)``.
        sigmas: the K tolerances (``Skeleton.sigmas``).
        weights: ``(N, M, K)``, of the joints in the mean; None counts all alike.
        widen: what sigmas are multiplied with.

    Returns:
        ``(N, M)``.
    """
    variances = (2 * widen * np.array(sigmas)) ** 2
    squared = ((keypoints[:, None] - others[None]) ** 2).sum(axis=3)
    area = (areas[:, None] + other_areas[None]) / 2 + np.spacing(1)
    near: Doubles = np.exp(-squared / variances / area[..., None] / 2)
    return np.asarray(np.average(near, axis=2, weights=weights), np.float64)


def joint_similarities(
    keypoints: Floats | Doubles,
    others: Floats | Doubles,
    areas: Doubles,
    sigmas: Sequence[float],
) -> Doubles:
    """OKS terms ``(N, K)`` of pairs of poses ``(N, K, 2)``, with areas ``(N,)`` square pixels."""
    variances = (2 * np.array(sigmas)) ** 2
    squared = ((keypoints - others).astype(np.float64) ** 2).sum(axis=2)
    terms: Doubles = np.exp(-squared / (2 * variances * (areas[:, None] + np.spacing(1))))
    return terms


def oks_nms(
    keypoints: Doubles,
    scores: Doubles,
    areas: Doubles,
    sigmas: Sequence[float],
    threshold: float = 0.9,
) -> NDArray[np.intp]:
    """Indices of the poses kept, best first: any more similar than ``threshold`` to a better one is
    dropped. Shapes as in ``oks_matrix``; ``scores`` (N,)."""
    similarity = oks_matrix(keypoints, areas, keypoints, areas, sigmas)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for index in order:
        if all(similarity[index, other] <= threshold for other in kept):
            kept.append(int(index))
    return np.array(kept, dtype=np.intp)
