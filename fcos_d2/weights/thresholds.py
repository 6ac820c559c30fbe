"""The score thresholds that a checkpoint holds, with the curves that they came from: plain data, read as such."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import FcosError
from .families import OURS
from .read import Weights

__all__ = ["BINS", "STEPS", "Thresholds", "calibrated", "stored_thresholds"]

STEPS = 100  # of the stored curves, from score 0 to 1
BINS = 15  # of a reliability diagram, from score 0 to 1
_KEY, _VERSION = "thresholds", 1
_EDGE = 1e-7  # scores are kept so far from 0 and 1, whose logits are not finite


@dataclass(frozen=True)
class Thresholds:
    """A score for each class above which detections are kept, and how it came about.

    Attributes:
        goal: what they were chosen for: "f1", "precision=0.9", "recall=0.8".
        iou: overlap from which on a detection was right.
        dataset: name of the validation data.
        class_names: of the K classes.
        values: (K) scores in 0..1; a detection is kept if its score is greater.
        own: (K) whether the class has a threshold of its own; else `for_all` stands in.
        reached: (K) whether the precision or recall that was asked for was there.
        for_all: the threshold that suits the objects of all classes together best.
        boxes: (K) objects of each class, crowd regions left out.
        kept: (2, K) int32: detections above the class's threshold, and how many of them were right.
        counts: (2, K, 101) int32: the same above the scores 0, 0.01, ... 1.
        temperature: what divides the logit of a score to calibrate it; `None` where there was too little to learn from.
        reliability: (2, 3, 15) float64: detections, sum of scores and right detections in each of 15 equal ranges of
            the score; of scores as they are, then of calibrated ones (the same where there is no temperature).
    """

    goal: str
    iou: float
    dataset: str
    class_names: tuple[str, ...]
    values: tuple[float, ...]
    own: tuple[bool, ...]
    reached: tuple[bool, ...]
    for_all: float
    boxes: tuple[int, ...]
    kept: Tensor
    counts: Tensor
    temperature: float | None
    reliability: Tensor

    def payload(self) -> dict[str, Any]:
        """Entries for a checkpoint: numbers, strings, lists and three tensors."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return {_KEY: {"version": _VERSION, **plain}}

    @property
    def by_class(self) -> dict[str, float]:
        """Score for each class; of classes that share a name the last."""
        return dict(zip(self.class_names, self.values))


def stored_thresholds(weights: Weights) -> Thresholds | None:
    """The thresholds in a checkpoint of ours; `None` where there are none.

    Raises:
        FcosError: they are damaged, or a later version wrote them.
    """
    found = weights.extra.get(_KEY)
    if found is None or weights.kind != OURS.name:
        return None
    try:
        if found["version"] != _VERSION:
            raise ValueError(f"version {found['version']}")
        given: dict[str, Any] = {field.name: found[field.name] for field in dataclasses.fields(Thresholds)}
        given.update({key: tuple(value) for key, value in given.items() if isinstance(value, list)})
        read = Thresholds(**given)
        _check(read)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FcosError(
            f"The score thresholds in {weights.path} cannot be used ({str(error)[:80]}): choose new ones with "
            "`fcos eval --thresholds f1 --save FILE`, or give a score yourself (--threshold 0.5, in Python "
            "score_threshold=0.5)."
        ) from error
    return read


def _check(found: Thresholds) -> None:
    """Raise ValueError unless a file's thresholds are what `Thresholds` says; they may be a stranger's."""
    count = len(found.class_names)
    columns = {"values": float, "own": bool, "reached": bool, "boxes": int, "class_names": str}
    for name, kind in columns.items():
        column = getattr(found, name)
        if not isinstance(column, tuple) or len(column) != count or not all(type(x) is kind for x in column):
            raise ValueError(f"not {count} entries of {kind.__name__} in '{name}'")
    if not all(0 <= x < 1 for x in (*found.values, found.for_all)):
        raise ValueError("a threshold outside of 0..1")
    if found.temperature is not None and not 0 < found.temperature < math.inf:
        raise ValueError("temperature")
    shapes = {"kept": (2, count), "counts": (2, count, STEPS + 1), "reliability": (2, 3, BINS)}
    if any(tuple(getattr(found, name).shape) != shape for name, shape in shapes.items()):
        raise ValueError("curves of another shape")
    if not (isinstance(found.goal, str) and isinstance(found.dataset, str) and 0 < found.iou <= 1):
        raise ValueError("goal, data set or IoU")


def calibrated(scores: Tensor, temperature: float) -> Tensor:
    """Scores in 0..1 whose logits are divided by a temperature; their order stays, and so does AP."""
    logits = torch.logit(scores.double().clamp(_EDGE, 1 - _EDGE))
    return torch.sigmoid(logits / temperature).to(scores.dtype)
