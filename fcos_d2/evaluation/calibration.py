"""How well scores tell how often detections are right, and the temperature that makes them tell it better.

A score is calibrated if of all detections with that score just that share is right (arXiv:1706.04599). Right is a
detection that found an object of its class at the IoU in question; what lies in crowd regions is left out. Among
detections, misses do not count: that is what recall is for.
"""

from __future__ import annotations

import numpy as np
import torch

from ..weights.thresholds import BINS, calibrated

__all__ = ["calibration_error", "fit_temperature", "reliability"]

_LEAST = 30  # right detections, and wrong ones, that a temperature is learned from
_COLDEST, _HOTTEST = 0.1, 10.0


def reliability(scores: np.ndarray, right: np.ndarray, temperature: float | None = None) -> np.ndarray:
    """Detections, the sum of their scores, and the right ones, in ranges of the score: (3, 15) float64.

    Args:
        scores: (D,) float64 in 0..1; range b is (b/15, (b+1)/15], the first one with 0.
        right: (D,) bool.
        temperature: that calibrates the scores before.
    """
    if temperature is not None:
        scores = calibrated(torch.from_numpy(np.asarray(scores, np.float64)), temperature).numpy()
    place = np.clip(np.ceil(scores * BINS) - 1, 0, BINS - 1).astype(np.int64)
    return np.stack([np.bincount(place, weight, BINS) for weight in (np.ones(len(place)), scores, right.astype(float))])


def calibration_error(bins: np.ndarray) -> float | None:
    """The expected calibration error, 0..1: how far scores are from the share of right detections, on average.

    Args:
        bins: of `reliability`.
    Returns:
        The mean over detections of |mean score - share of right ones| of their range; `None` without detections.
    """
    count, score, right = np.asarray(bins, np.float64)
    return float(np.abs(score - right).sum() / count.sum()) if count.sum() else None


def fit_temperature(scores: np.ndarray, right: np.ndarray) -> float | None:
    """The temperature of the highest likelihood: that of `right`, if sigmoid(logit(score) / temperature) is its odds.

    Args:
        scores, right: as of `reliability`.
    Returns:
        A number from 0.1 to 10; `None` with fewer than 30 right or 30 wrong detections.
    """
    if min(right.sum(), (~right).sum()) < _LEAST:
        return None
    edge = 1e-7
    clipped = np.clip(scores, edge, 1 - edge)
    logits = np.log(clipped / (1 - clipped))

    def slope(factor: float) -> float:  # of the negative log-likelihood, which is convex, by 1 / temperature
        return float((logits * (1 / (1 + np.exp(-factor * logits)) - right)).sum())

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return round(2 / (low + high), 6)
