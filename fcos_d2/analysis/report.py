"""All of an analysis: the paper's quantities for a data set, those of a detector, what is lost, and what would help."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..data.audit.reach import Rule
from ..data.layout import DatasetLayout
from ..errors import FcosError
from ..files import write_atomically
from .assignment import Assignment
from .changes import Change, possible, set_size
from .objects import Objects
from .price import Prices
from .reasons import LOST, Lost, lost, told
from .rules import detector_rule
from .search import Suggestion, alone, search
from .tables import paper_table, plain_assignment, plain_rule
from .written import source_of

__all__ = ["Analysis", "analyze"]


@dataclass
class Analysis:
    """What was found in the parts of a data set.

    Attributes:
        parts: the boxes of each.
        cfg: of the detector.
        rule: by which it assigns.
        paper: rows of `paper_table`.
        found: what becomes of the boxes of each part under the rule.
        lost: those that no location is assigned to.
        asked_size: shorter side of the input, pixels, where it is not that of the detector's own config.
        pages: object -> name of the page that shows it, of each part.
        trained: the part that changes are looked for on.
        suggestion: what would help, from `suggest`.
        after: what becomes of the boxes of that part then.
        trials: single changes, and what becomes of these boxes.
        prices: of changes.
    """

    parts: Mapping[str, Objects]
    cfg: DictConfig
    rule: Rule
    paper: list[dict[str, Any]]
    found: dict[str, Assignment]
    lost: dict[str, list[Lost]]
    trained: str
    asked_size: int | None = None
    pages: dict[str, dict[int, str]] = field(default_factory=dict)
    suggestion: Suggestion | None = None
    after: Assignment | None = None
    trials: tuple[tuple[Change, Assignment], ...] = ()
    prices: Prices | None = None

    def suggest(self, target: float) -> Suggestion:
        """Look for the cheapest change under which a share of the objects of the part that is trained on is learned."""
        objects, may = self.parts[self.trained], possible(self.cfg)
        self.prices = Prices(self.cfg, self.rule, objects.usual_frame())
        self.suggestion = search(objects, self.rule, self.prices, may, target)
        self.after = objects.assign(self.suggestion.change.of(self.rule))
        self.trials = tuple((one, objects.assign(one.of(self.rule))) for one in alone(self.rule, may))
        return self.suggestion

    def write_config(self, path: Path, name: str, layout: DatasetLayout, data: Path) -> dict[str, Any]:
        """Write the suggestion as a LazyConfig.

        Args:
            path: the file.
            name: what the detector's config was read from: a variant, or a file.
            layout: of the data set, which has a train part.
            data: where it lies, as the user named it.
        Returns:
            "config", the file, and "command", the line that trains it; nothing where nothing is suggested.
        Raises:
            FcosError: it cannot be written.
        """
        if self.suggestion is None or self.after is None or not len(self.suggestion.change):
            return {}
        change, rule = self.suggestion.change, self.after.rule
        line = ["fcos", "train", "--data", str(data), "--config", str(path), "--image-size", str(rule.image_size)]
        before, after = self._numbers(self.found[self.trained], Change()), self._numbers(self.after, change)
        said = [
            f"{name}, changed so that more objects of {data.name} can be learned.",
            "", f"What is changed: {'; '.join(change.words(self.rule))}.",
            *(f"{key}: {before[key]} before, {after[key]} after." for key in ("best_possible_recall", "gflops")),
            "", "Written by fcos analyze; trained by", "", f"    {shlex.join(line)}", "",
        ]  # fmt: skip
        size = rule.image_size if self.asked_size or change.image_size else None
        text = source_of(self.cfg, change, self.rule, size=size, origin=name, layout=layout, data=data, said=said)
        write_atomically(path, lambda file: file.write(text.encode("ascii")))
        return {"config": path, "command": shlex.join(line)}

    def plain(self) -> dict[str, Any]:
        """As data for JSON; shares are from 0 to 1."""
        data: dict[str, Any] = {
            "paper": {"image_size": 800, "max_size": 1333, "rows": self.paper}, "rule": plain_rule(self.rule),
            "parts": {part: plain_assignment(self.parts[part], one) for part, one in self.found.items()},
            "unlearnable": {
                "counts": {part: _counts(those) for part, those in self.lost.items()},
                "objects": [
                    {**told(self.parts[part], one, self.rule), "picture": self.pages.get(part, {}).get(one.object)}
                    for part, those in self.lost.items() for one in those
                ],
            },
        }  # fmt: skip
        if self.suggestion is not None and self.after is not None:
            change = self.suggestion.change
            trials = ({"change": next(one.words(self.rule)), **self._numbers(made, one)} for one, made in self.trials)
            data["suggestion"] = {
                "part": self.trained, "target": self.suggestion.target, "goal": self.suggestion.goal,
                "before": self._numbers(self.found[self.trained], Change()), "after": self._numbers(self.after, change),
                "changes": list(change.words(self.rule)), "rule": plain_rule(self.after.rule), "alone": list(trials),
                "picture": [] if self.prices is None else self.prices.frame[0].tolist(),  # size that GFLOPs are for
                "left": _counts(lost(self.parts[self.trained], self.after)),
            }  # fmt: skip
        return data

    def _numbers(self, found: Assignment, change: Change) -> dict[str, Any]:
        gflops = None if self.prices is None else self.prices.gflops(change)
        return {
            "best_possible_recall": round(found.best_possible_recall, 6), "ambiguous": found.ambiguous_share,
            "ambiguous_across_classes": found.across_share,
            "positives_per_object": float(found.won.sum() / max(len(found.won), 1)),
            "gflops": None if gflops is None else round(gflops, 2),
        }  # fmt: skip


def analyze(parts: Mapping[str, Objects], cfg: DictConfig, image_size: int | None = None) -> Analysis:
    """Count the boxes of a data set under the paper's rules and a detector's.

    Args:
        parts: what `read_objects` returned.
        cfg: of the detector, with the nodes `model` and `dataloader`; changed in place.
        image_size: shorter side of its input, pixels; by default what it evaluates at.
    Raises:
        FcosError: the config does not let the size be set, or its detector has another rule than FCOS's.
    """
    if OmegaConf.select(cfg, "model.num_classes") is not None:
        cfg.model.num_classes = next(iter(parts.values())).classes
    if image_size is not None and not set_size(cfg, image_size):
        raise FcosError("The config does not say how test images are resized, so their size cannot be set.")
    rule = detector_rule(cfg)
    found = {part: objects.assign(rule) for part, objects in parts.items()}
    those = {part: lost(parts[part], one) for part, one in found.items()}
    trained = next(part for part, objects in parts.items() if len(objects))
    return Analysis(parts, cfg, rule, paper_table(parts), found, those, trained, image_size)


def _counts(those: list[Lost]) -> dict[str, int]:
    counts = Counter(one.reason for one in those)
    return {reason: counts[reason] for reason in LOST}
