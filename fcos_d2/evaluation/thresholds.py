"""A score threshold for each class, chosen on validation data.

Detections are matched once (`matching`), for whether one is right does not depend on those with lower scores. From the
best score down, the counts of detections and of right ones then give precision, recall and F1 above every score.
A detection is kept if its score is greater than the threshold, as everywhere in this package; detections of equal
scores are kept or dropped together, and a threshold lies half-way between two scores that were seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FcosError
from ..weights.rules import some
from ..weights.thresholds import STEPS, Thresholds
from .calibration import calibration_error, fit_temperature, reliability
from .matching import Found, Truth, match
from .scores import distinct

__all__ = ["LEAST_BOXES", "Curve", "Goal", "Scored", "applied", "choose", "report", "sentences"]

LEAST_BOXES = 30  # of a class, that a threshold of its own is chosen from; see docs/thresholds.md for why

_SLACK = 1.0  # standard errors that an F1 may lie below the best and count as equal; this halves what is lost


@dataclass(frozen=True)
class Curve:
    """What is kept above each score, of one class or of several together.

    Attributes:
        scores: (n,) the distinct scores of detections, falling; crowd regions and what lies in them are left out.
        kept, right: (n,) detections with at least that score, and the right ones among them.
        boxes: objects that are there.
    """

    scores: np.ndarray
    kept: np.ndarray
    right: np.ndarray
    boxes: int

    @classmethod
    def of(cls, scores: np.ndarray, right: np.ndarray, boxes: int) -> Curve:
        """The curve of detections in any order: (D,) scores, and whether each is right."""
        order = np.argsort(-scores, kind="stable")
        falling = scores[order]
        last = np.append(falling[1:] != falling[:-1], True) if len(falling) else np.zeros(0, bool)
        kept, total = np.flatnonzero(last) + 1, np.cumsum(right[order])
        return cls(falling[last], kept, total[last], boxes)

    def above(self, threshold: float) -> tuple[int, int]:
        """Detections with a greater score, and the right ones among them."""
        place = int(np.searchsorted(-self.scores, -threshold, side="left"))
        return (int(self.kept[place - 1]), int(self.right[place - 1])) if place else (0, 0)

    @property
    def precision(self) -> np.ndarray:
        return self.right / self.kept

    @property
    def recall(self) -> np.ndarray:
        return self.right / max(self.boxes, 1)

    @property
    def f1(self) -> np.ndarray:
        return 2 * self.right / (self.kept + self.boxes)

    def below(self, place: int) -> float:
        """The threshold that keeps the first `place` + 1 scores: half-way to the next one, in few digits if it can be.

        Below the lowest score nothing is known, so that threshold lies right under it.
        """
        upper, last = float(self.scores[place]), place + 1 == len(self.scores)
        lower = float(np.nextafter(np.float32(upper), np.float32(0))) if last else float(self.scores[place + 1])
        middle = lower if last else (upper + lower) / 2
        for value in (np.floor(upper * 1e4) / 1e4 if last else round(middle, 4), float(np.float32(middle))):
            # Scores are float32, and so is what they will be compared with.
            if all((last or lower <= x) and x < upper for x in (float(value), float(np.float32(value)))):
                return float(value)
        return max(lower, 0.0)


# What a threshold may be chosen for: curve and number -> place in the curve, and whether the goal is reached.
Choice = Callable[[Curve, float], tuple[int, bool]]


def _best_f1(curve: Curve, _: float) -> tuple[int, bool]:
    """The middle of the thresholds whose F1 is the best, or so near that these data cannot tell them apart."""
    f1, scores = curve.f1, np.append(curve.scores, 0.0)
    best = f1.max()
    near = np.flatnonzero(f1 >= best - _SLACK * np.sqrt(best * (1 - best) / max(curve.boxes, 1)))
    middle = (scores[near[0]] + scores[near[-1] + 1]) / 2
    holds = int((curve.scores > middle).sum()) - 1  # the place whose thresholds it is among
    return int(near[np.abs(near - holds).argmin()]), True


def _enough_precision(curve: Curve, least: float) -> tuple[int, bool]:
    """The most detections of which enough are right; else those of which the largest share is."""
    enough = np.flatnonzero(curve.precision >= least)
    if len(enough):
        return int(enough[-1]), True
    return len(curve.scores) - 1 - int(curve.precision[::-1].argmax()), False


def _enough_recall(curve: Curve, least: float) -> tuple[int, bool]:
    """The fewest detections that find enough objects; else all."""
    enough = np.flatnonzero(curve.recall >= least)
    return (int(enough[0]), True) if len(enough) else (len(curve.scores) - 1, False)


_CHOICES: dict[str, Choice] = {"f1": _best_f1, "precision": _enough_precision, "recall": _enough_recall}


@dataclass(frozen=True)
class Goal:
    """What thresholds are chosen for: the best "f1", or the best of what has at least some "precision" or "recall".

    Raises:
        FcosError: it is something else, or the least precision or recall is not in 0..1, 0 excluded.
    """

    name: str = "f1"
    least: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in _CHOICES or not 0 < self.least <= 1:
            raise FcosError(f"Thresholds cannot be chosen for {self}: f1, or a precision or recall above 0, at most 1.")

    def __str__(self) -> str:
        return self.name if self.name == "f1" else f"{self.name}={self.least:g}"

    def threshold(self, curve: Curve) -> tuple[float, bool]:
        """The threshold for a curve of at least one detection, and whether the goal is reached."""
        place, reached = _CHOICES[self.name](curve, self.least)
        return curve.below(place), reached


@dataclass(frozen=True)
class Scored:
    """Detections of a data set that are known to be right or wrong.

    Attributes:
        curves: one for each of the K classes.
        scores, right: (D,) of all detections that count; those in crowd regions do not.
        class_names, iou, dataset: as of `Thresholds`.
    """

    curves: tuple[Curve, ...]
    scores: np.ndarray
    right: np.ndarray
    class_names: tuple[str, ...]
    iou: float
    dataset: str

    @classmethod
    def of(
        cls, found: Found, truth: Truth, class_names: Sequence[str], dataset: str = "", iou: float = 0.5,
        limit: int = 100,
    ) -> Scored:  # fmt: skip
        """Match detections with objects; labels are class indices, 0 to K - 1. The rest as of `match`."""
        matches = match(found, truth, iou, limit)
        counts = ~matches.ignored
        label, scores, right = found.label[counts], found.scores[counts], matches.right[counts]
        boxes = np.bincount(truth.label[~truth.crowd], minlength=len(class_names))
        curves = [Curve.of(scores[label == k], right[label == k], int(boxes[k])) for k in range(len(class_names))]
        return cls(tuple(curves), scores, right, tuple(class_names), float(iou), dataset)


def choose(scored: Scored, goal: Goal = Goal()) -> Thresholds | None:
    """Choose a threshold for each class.

    A class with fewer than `LEAST_BOXES` objects, or of which nothing was found, gets the one that suits the detections
    of all classes together.

    Returns:
        The thresholds; `None` where all classes together have too few objects, or nothing was found.
    """
    curves = scored.curves
    boxes = [curve.boxes for curve in curves]
    if sum(boxes) < LEAST_BOXES or not scored.right.any():
        return None
    for_all, by_all = goal.threshold(Curve.of(scored.scores, scored.right, sum(boxes)))
    own = [curve.boxes >= LEAST_BOXES and curve.right[-1:].sum() > 0 for curve in curves]
    chosen = [goal.threshold(curve) if mine else (for_all, by_all) for curve, mine in zip(curves, own)]
    temperature, nothing = fit_temperature(scored.scores, scored.right), torch.zeros(0)
    values, reached = (tuple(column) for column in zip(*chosen))
    bare = Thresholds(
        str(goal), scored.iou, "", scored.class_names, values, tuple(map(bool, own)), reached, for_all, (), nothing,
        nothing, temperature, nothing,
    )  # fmt: skip
    return applied(bare, scored)


def applied(thresholds: Thresholds, scored: Scored) -> Thresholds:
    """The same thresholds and temperature, with the counts that they give on some data."""
    curves, values = scored.curves, thresholds.values
    kept = [curve.above(value) for curve, value in zip(curves, values, strict=True)]
    counts = [[curve.above(step / STEPS) for step in range(STEPS + 1)] for curve in curves]
    temperatures = (None, thresholds.temperature)
    bins = np.stack([reliability(scored.scores, scored.right, which) for which in temperatures])
    return replace(
        thresholds, dataset=scored.dataset, boxes=tuple(curve.boxes for curve in curves), kept=_columns(kept),
        counts=_columns(counts), reliability=torch.from_numpy(bins), iou=scored.iou,
    )  # fmt: skip


def _columns(pairs: Sequence[Any]) -> Tensor:
    """(K, ..., 2) counts -> (2, K, ...) int32."""
    return torch.tensor(pairs, dtype=torch.int32).movedim(-1, 0).contiguous()


def report(found: Thresholds) -> dict[str, Any]:
    """Thresholds as plain data: what they give, beside 0.5 for all classes, and how far scores are calibrated.

    Returns:
        "f1", "precision" and "recall" count the objects of all classes alike, "f1_mean" is the mean over classes that
        have objects, and those with "_at_0.5" are of that threshold; numbers from 0 to 1, `None` where there is nothing
        to divide by.
    """
    kept, half = found.kept.tolist(), found.counts[:, :, STEPS // 2].tolist()
    rows = {}
    for k, name in enumerate(distinct(found.class_names)):
        chosen, plain = (_shares(counts[0][k], counts[1][k], found.boxes[k]) for counts in (kept, half))
        rows[name] = {
            "threshold": found.values[k], "own": found.own[k], "reached": found.reached[k], "boxes": found.boxes[k],
            **chosen, "f1_at_0.5": plain["f1"],
        }  # fmt: skip
    total, plain = (_shares(sum(counts[0]), sum(counts[1]), sum(found.boxes)) for counts in (kept, half))
    there = [row for row in rows.values() if row["boxes"]]
    bins = found.reliability.numpy()
    return {
        "goal": found.goal, "iou": found.iou, "dataset": found.dataset, "for_all": found.for_all, **total,
        "f1_at_0.5": plain["f1"], "f1_mean": _mean([row["f1"] for row in there]),
        "f1_mean_at_0.5": _mean([row["f1_at_0.5"] for row in there]), "per_class": rows,
        "calibration": {
            "error": _rounded(calibration_error(bins[0])), "temperature": found.temperature,
            "error_calibrated": _rounded(calibration_error(bins[1])) if found.temperature else None,
        },
    }  # fmt: skip


def sentences(found: Thresholds | None) -> list[str]:
    """What a user should know of thresholds that were just chosen."""
    if found is None:
        return [f"No thresholds are chosen: that takes {LEAST_BOXES} objects, and detections of some of them."]
    few = [name for name, own in zip(found.class_names, found.own) if not own]
    missed = [name for name, own, reached in zip(found.class_names, found.own, found.reached) if own and not reached]
    told = []
    if few:
        reason = f"fewer than {LEAST_BOXES} objects, or none that is found"
        told.append(f"{some(few)}: {reason}, so the threshold for all, {found.for_all:.3f}, stands in.")
    if missed:
        told.append(f"{some(missed)}: no threshold gives {found.goal}; the nearest one is taken.")
    return told


def _shares(kept: int, right: int, boxes: int) -> dict[str, float | None]:
    """Precision, recall and F1; `None` where there is nothing to divide by."""
    pairs = {"precision": (right, kept), "recall": (right, boxes), "f1": (2 * right, kept + boxes)}
    return {name: round(part / whole, 6) if whole else None for name, (part, whole) in pairs.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value or 0.0 for value in values]
    return _rounded(sum(known) / len(known)) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
