"""Calibration errors and temperatures that are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fcos_d2.evaluation.calibration import calibration_error, fit_temperature, reliability
from fcos_d2.weights.thresholds import calibrated


def drawn(temperature: float, count: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are right as often as they say after their logits are divided by a temperature."""
    draw = np.random.default_rng(0)
    scores = draw.beta(1.2, 1.5, count).clip(1e-3, 1 - 1e-3)
    odds = (scores / (1 - scores)) ** (1 / temperature)
    return scores, draw.random(count) < odds / (1 + odds)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    scores, right = drawn(temperature)
    found = fit_temperature(scores, right)
    assert found == pytest.approx(temperature, rel=0.02)
    before, after = (calibration_error(reliability(scores, right, t)) for t in (None, found))
    assert after < 0.006 and (temperature == 1.0 or before > 0.05)


def test_errors_solved_by_hand():
    """Ten detections of score 0.9, six right; ten of 0.2, none right."""
    scores, right = np.repeat([0.9, 0.2], 10), np.repeat([True, False], [6, 14])
    bins = reliability(scores, right)
    assert bins[:, 13].tolist() == [10, pytest.approx(9.0), 6] and bins[:, 2].tolist() == [10, pytest.approx(2.0), 0]
    assert calibration_error(bins) == pytest.approx((3 + 2) / 20)
    assert calibration_error(reliability(np.zeros(0), np.zeros(0, bool))) is None
    edges = reliability(np.array([0.0, 1.0, 1 / 15]), np.ones(3, bool))
    assert edges[0, [0, -1]].tolist() == [2, 1]  # the upper end of a range belongs to it


def test_the_order_of_scores_stays():
    scores = torch.rand(500).sort().values
    for temperature in (0.1, 0.7, 3.0, 10.0):
        changed = calibrated(scores, temperature)
        assert bool((changed.diff() >= 0).all()) and changed.min() >= 0 and changed.max() <= 1
        assert changed.unique().numel() > 350  # some are as good as 1 when it is cold
    exact = scores.double()
    assert torch.allclose(calibrated(calibrated(exact, 0.7), 1 / 0.7), exact, atol=1e-6)
    assert calibrated(torch.tensor([0.0, 1.0]), 0.5).tolist() == [pytest.approx(0, abs=1e-9), pytest.approx(1)]


def test_too_little_to_learn_from():
    scores, right = drawn(2.0, 1000)
    few = np.append(np.flatnonzero(right)[:29], np.flatnonzero(~right))
    assert fit_temperature(scores[few], right[few]) is None
    assert fit_temperature(np.zeros(0), np.zeros(0, bool)) is None
