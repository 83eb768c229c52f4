"""From a joint's raw score to the probability that it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from sdpose_core.evaluate.breakdown import PersonScore


@dataclass(frozen=True)
class CalibrationFit:
    """``score = 1 / (1 + exp(-(slope * ln(peak) + offset)))`` and how well it fits.

    ``log_loss`` and ``constant_log_loss``: mean negative log-likelihood of the fit and of the
    best constant. ``error``: expected calibration error over ten equal bins.
    """

    slope: float
    offset: float
    log_loss: float
    constant_log_loss: float
    error: float


def fit_calibration(
    peaks: NDArray[np.floating], right: NDArray[np.bool_], steps: int = 50
) -> CalibrationFit:
    """Platt's logistic fit (1999) on the logarithm of the peak, by Newton's method.

    ``peaks`` (N,) > 0, ``right`` (N,) whether each joint was placed correctly. Targets are smoothed
    as in Platt's paper, so that separable data has a finite answer. Raises ``ValueError`` with
    fewer than two values or only one kind of outcome.
    """
    if peaks.shape != right.shape or len(peaks) < 2 or right.all() or not right.any():
        raise ValueError(
            "calibration needs both right and wrong joints, and as many peaks as outcomes"
        )
    x = np.stack([np.log(np.maximum(peaks.astype(np.float64), 1e-6)), np.ones(len(peaks))], axis=1)
    positive, negative = int(right.sum()), int((~right).sum())
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weights = np.zeros(2)
    for _ in range(steps):
        chance = _logistic(x @ weights)
        gradient = x.T @ (chance - target)
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights -= np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    chance = _logistic(x @ weights)
    rate = float(right.mean())
    bins = np.minimum((chance * 10).astype(int), 9)
    error = sum(
        abs(float(chance[bins == b].mean()) - float(right[bins == b].mean()))
        * float((bins == b).mean())
        for b in range(10)
        if (bins == b).any()
    )
    return CalibrationFit(
        slope=float(weights[0]),
        offset=float(weights[1]),
        log_loss=_log_loss(chance, right),
        constant_log_loss=_log_loss(np.full(len(right), rate), right),
        error=error,
    )


def _logistic(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -60, 60))))


def _log_loss(chance: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    chance = np.clip(chance, 1e-9, 1 - 1e-9)
    return float(-np.where(right, np.log(chance), np.log(1 - chance)).mean())


def joint_outcomes(
    scored: Sequence[PersonScore],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Raw scores of all labelled joints and whether each is right: both (N,).

    A joint is right when its OKS term is above 0.5, that is within 2.35 of COCO's sigmas of the
    annotation. The poses must come from an estimator without calibration.
    """
    peaks, right = [np.zeros(0)], [np.zeros(0, bool)]
    for person in scored:
        if person.keypoint_scores is None:
            continue
        known = ~np.isnan(person.similarity)
        peaks.append(person.keypoint_scores[known].astype(np.float64))
        right.append(person.similarity[known] > 0.5)
    return np.concatenate(peaks), np.concatenate(right)


def calibrate_scores(scored: Sequence[PersonScore]) -> dict[str, float]:
    """The value of ``score_calibration`` in a checkpoint's training facts."""
    peaks, right = joint_outcomes(scored)
    fit = fit_calibration(peaks, right)
    return {**asdict(fit), "joints": float(len(right)), "right": float(right.mean())}
