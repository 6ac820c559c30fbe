"""Which detections are reported: the caller's score thresholds, else those of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from detectron2.structures import Instances

from ..config.overrides import suggestion
from ..errors import FcosError
from ..modeling import Selector
from ..weights.thresholds import Thresholds, calibrated

__all__ = ["Keep", "ScoreThreshold"]

# A score for all classes, or for some by name, `None` being the name of all others.
ScoreThreshold: TypeAlias = "float | Mapping[str | None, float] | None"


@dataclass(frozen=True)
class Keep:
    """A rule by which detections are kept or dropped.

    Attributes:
        least: scores must be greater: one for all classes, one for each class, or no such rule.
        final: whether `least` replaces the selector's own threshold; else it comes on top of that.
        temperature: that calibrates reported scores; `None` leaves them.
    """

    least: float | tuple[float, ...] | None = None
    final: bool = True
    temperature: float | None = None

    @classmethod
    def of(
        cls, given: ScoreThreshold, stored: Thresholds | None, names: Sequence[str], otherwise: float | None = None,
        temperature: float | None = None,
    ) -> Keep:  # fmt: skip
        """The rule of a caller.

        Args:
            given: what the caller says; of the scores that are reported.
            stored: thresholds of the checkpoint, for scores before calibration.
            names: of the model's classes.
            otherwise: for all classes where neither of them says anything; `None`: the selector's own threshold.
            temperature: that calibrates reported scores.
        Raises:
            FcosError: a threshold is of an unknown class, or those of the checkpoint are not for these classes.
        """

        def raw(score: float) -> float:
            """The score before calibration."""
            return score if temperature is None else float(calibrated(torch.tensor(score).double(), 1 / temperature))

        if given is None and stored is not None:
            if len(stored.values) != len(names):
                raise FcosError(
                    f"The checkpoint has thresholds for {len(stored.values)} classes, but the model has {len(names)}: "
                    "give a score for all of them (--threshold 0.5, in Python score_threshold=0.5)."
                )
            return cls(stored.values, False, temperature)
        if not isinstance(given, Mapping):
            return cls(otherwise if given is None else raw(given), True, temperature)
        for name in given:
            if name is not None and name not in names:
                raise FcosError(f"There is no class {name!r} to set a threshold for{suggestion(name, list(names))}")
        others = [raw(given[None]) if None in given else otherwise or 0.0] * len(names)
        if None not in given and stored is not None and len(stored.values) == len(names):
            others = list(stored.values)
        return cls(tuple(raw(given[n]) if n in given else x for n, x in zip(names, others)), True, temperature)

    def values(self, count: int) -> tuple[float, ...]:
        """The least score of each of `count` classes, before calibration; 0 where there is no such rule."""
        return self.least if isinstance(self.least, tuple) else (self.least or 0.0,) * count

    def by_class(self, names: Sequence[str]) -> dict[str, float] | None:
        """The least score of each class, before calibration."""
        if self.least is None:
            return None
        return dict(zip(names, self.values(len(names))))

    def selector(self, selector: Any) -> Any:
        """A selector that drops early what would be dropped here; one of another kind as it is."""
        if self.least is None or not isinstance(selector, Selector):
            return selector
        least = min(self.least) if isinstance(self.least, tuple) else self.least
        if self.final:  # final scores are compared, whatever the selector's own threshold was on
            return replace(selector, threshold_on="score", score_threshold=least)
        # Of class score c and quality q, at most 1, the final score is c*q or its root.
        rooted = selector.score_form == "sqrt" and selector.threshold_on != "score"
        bound = (least**2 if rooted else least) * (1 - 1e-5)
        return replace(selector, score_threshold=max(selector.score_threshold, bound))

    def voters(self, selector: Any) -> Any:
        """A selector that drops nothing that has a say in what is kept: boxes that are averaged with better ones.

        So a higher threshold reports fewer of the same boxes.
        """
        tight = self.selector(selector)
        if not self.final or not isinstance(selector, Selector):
            return selector
        return replace(tight, score_threshold=min(tight.score_threshold, selector.score_threshold))

    def __call__(self, found: Instances) -> Instances:
        """Detections of an image that are kept, with the scores that are reported."""
        if self.least is not None:
            least: Any = self.least
            if isinstance(least, tuple):
                least = found.scores.new_tensor(least)[found.pred_classes]
            found = found[found.scores > least]
        if self.temperature is not None and len(found):
            found.scores = calibrated(found.scores, self.temperature)
        return found


def require_scores(given: ScoreThreshold) -> None:
    """Raise FcosError if a threshold is no score."""
    values = given.values() if isinstance(given, Mapping) else [given]
    for value in values:
        if value is not None and not 0 <= value < 1:
            raise FcosError(f"score_threshold is {value}; it must be in 0..1, 1 excluded, for example 0.3.")
