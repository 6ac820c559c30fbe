"""How far chosen score thresholds are from the best, by number of objects: `python -m projects_tools.threshold_study`.

Scores of right and of wrong detections are drawn from beta distributions, whose threshold of the best F1 is known.
The table is in docs/thresholds.md.
"""

from __future__ import annotations

import math

import numpy as np

from fcos_d2.evaluation.thresholds import Curve, Goal

# Beta parameters of right and of wrong scores, share of objects that are found, wrong detections for each object.
DETECTORS = (((6, 3), (1.2, 5), 0.95, 3.0), ((8, 8), (2, 8), 0.9, 2.0), ((10, 2), (1, 1.5), 0.97, 1.0),
             ((2.5, 2), (1.2, 4), 0.8, 5.0))  # fmt: skip
OBJECTS = (10, 20, 30, 50, 100, 300, 1000, 10_000)
GRID = np.linspace(0, 1, 20_001)


def above(a: float, b: float, grid: np.ndarray = GRID) -> np.ndarray:
    """The share of a beta distribution above each score of an even grid."""
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.nan_to_num(np.exp(log + (a - 1) * np.log(grid) + (b - 1) * np.log1p(-grid)), posinf=0.0)
    area = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
    return 1 - area / area[-1]


def row(objects: int, draws: int, seed: int = 0) -> tuple[float, float, float]:
    """Root mean square of how far thresholds are off; mean F1 that is lost, and that which the best F1 alone loses."""
    draw = np.random.default_rng(seed)
    off, lost, by_best = [], [], []
    for right, wrong, found, false in DETECTORS:
        hits, misses = found * above(*right), false * above(*wrong)
        f1 = 2 * hits / (hits + misses + 1)
        for _ in range(draws):
            count, more = draw.binomial(objects, found), draw.poisson(objects * false)
            scores = np.concatenate((draw.beta(*right, count), draw.beta(*wrong, more)))
            curve = Curve.of(scores, np.arange(len(scores)) < count, objects)
            threshold, best = Goal().threshold(curve)[0], curve.below(int(curve.f1.argmax()))
            off.append(threshold - GRID[f1.argmax()])
            lost.append(f1.max() - np.interp(threshold, GRID, f1))
            by_best.append(f1.max() - np.interp(best, GRID, f1))
    return float(np.sqrt(np.mean(np.square(off)))), float(np.mean(lost)), float(np.mean(by_best))


def main() -> None:
    print("| objects | threshold off by | F1 lost | F1 lost by the score of the best F1 |\n| --- | --- | --- | --- |")
    for objects in OBJECTS:
        off, lost, by_best = row(objects, 500 if objects <= 1000 else 50)
        print(f"| {objects:,} | {off:.3f} | {lost:.4f} | {by_best:.4f} |")


if __name__ == "__main__":
    main()
