"""The score thresholds of a training or an evaluation: chosen, written beside its results, put into a checkpoint."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FcosError
from ..evaluation.matching import Found, Truth
from ..evaluation.thresholds import Goal, Scored, applied, choose, report, sentences
from ..files import write_json
from ..visualize.thresholds import Panel, draw_thresholds
from ..weights.families import OURS
from ..weights.fetch import fetch
from ..weights.read import load, read
from ..weights.thresholds import Thresholds, stored_thresholds
from ..weights.write import save

__all__ = ["Detected", "Wanted", "detected_by", "for_classes", "of_evaluation", "of_training", "require_copyable"]


@dataclass(frozen=True)
class Detected:
    """What a detector found in the images of a data set, and what is there; labels are class indices."""

    found: Found
    truth: Truth
    class_names: tuple[str, ...]
    dataset: str
    limit: int  # of detections of an image and class that count

    def scored(self, iou: float = 0.5) -> Scored:
        return Scored.of(self.found, self.truth, self.class_names, self.dataset, iou, self.limit)


def detected_by(evaluators: Sequence[Any]) -> Detected | None:
    """What the first evaluator that tells it has evaluated; None if none does.

    Args:
        evaluators: one for each data set, or a list of them; another project's does not tell, and then the next data
            set counts.
    """
    for one in itertools.chain.from_iterable(x if isinstance(x, (list, tuple)) else [x] for x in evaluators):
        if (tables := getattr(one, "tables", None)) and (names := one.metadata.get("thing_classes")):
            return Detected(tables[0], tables[1], tuple(names), one.dataset_name, one.limits[-1])
    return None


@dataclass(frozen=True)
class Wanted:
    """What `fcos eval` is asked for."""

    goal: Goal | None = None  # None: what the checkpoint's own thresholds give
    iou: float | None = None  # least overlap; None: 0.5, or that of the checkpoint's thresholds
    save: Path | None = None  # copy of the checkpoint that is to hold them


def of_training(folder: Path, title: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Write thresholds.json and thresholds.png of a training's best checkpoint; returns as `of_evaluation` does."""
    best = folder / "model_best.pth"
    if not best.is_file():  # nothing was evaluated
        return None, []
    found = stored_thresholds(read(best))
    return None if found is None else _write(found, folder, title), sentences(found)


def of_evaluation(
    detected: Detected | None, weights: str, wanted: Wanted, folder: Path, title: str
) -> tuple[dict[str, Any] | None, list[str]]:
    """Choose thresholds with the detections of an evaluation, or see what those of the checkpoint give there.

    Args:
        detected: what was evaluated.
        weights: the checkpoint, file or address.
        wanted: what for.
        folder: for thresholds.json and thresholds.png.
        title: of the picture.
    Returns:
        The report, None where there are no thresholds; and what the user should know, in sentences.
    Raises:
        FcosError: the goal is none, the evaluator does not tell what was found, or the copy cannot be written.
    """
    if wanted.goal is None:
        try:
            stored = stored_thresholds(read(fetch(weights))) if detected else None
        except FcosError as error:  # they are damaged, which is no reason to lose the evaluation
            return None, [f"warning: {error}"]
        if stored is None or detected is None:
            return None, []
        own = for_classes(stored, detected.class_names)
        return _write(applied(own, detected.scored(wanted.iou or stored.iou)), folder, title), []
    if detected is None:
        raise FcosError("The config's evaluator keeps no boxes to choose thresholds with: use FastCOCOEvaluator.")
    found = choose(detected.scored(wanted.iou or 0.5), wanted.goal)
    told = sentences(found)
    if found is None:
        return None, [*told, *([] if wanted.save is None else [f"{wanted.save} is not written."])]
    written = _write(found, folder, title)
    if wanted.save is not None:
        save(wanted.save, {**load(fetch(weights)), **found.payload()})
    return written, told


def require_copyable(wanted: Wanted, weights: str, class_names: Sequence[str] | None) -> None:
    """Raise FcosError if thresholds for these classes cannot be kept in a copy of a checkpoint."""
    if wanted.save is None:
        return
    held = read(fetch(weights))
    if held.kind != OURS.name:
        raise FcosError(f"{weights} is no checkpoint of fcos_d2, so it takes no thresholds: `fcos convert` it first.")
    if held.class_names is not None and list(held.class_names) != list(class_names or ()):
        raise FcosError(f"{weights} has other classes than the data: {wanted.save} cannot hold thresholds for these.")


def for_classes(stored: Thresholds, names: Sequence[str]) -> Thresholds:
    """Thresholds for the classes of a data set, fewer or in another order; unknown ones get that for all."""
    if tuple(names) == stored.class_names:
        return stored
    rows = {name: k for k, name in enumerate(stored.class_names)}
    values = tuple(stored.values[rows[name]] if name in rows else stored.for_all for name in names)
    own = tuple(name in rows and stored.own[rows[name]] for name in names)
    reached = tuple(name not in rows or stored.reached[rows[name]] for name in names)
    return dataclasses.replace(stored, class_names=tuple(names), values=values, own=own, reached=reached)


def _write(found: Thresholds, folder: Path, title: str) -> dict[str, Any]:
    told = report(found)
    write_json(folder / "thresholds.json", {**told, "curves": _curves(found)})
    detections, right = found.counts.numpy()
    columns = zip(found.class_names, found.values, found.own, found.boxes, detections, right)
    panels = [Panel(*column) for column in columns]
    bins = found.reliability.numpy()
    draw_thresholds(panels, bins, folder / "thresholds.png", title, found.goal, found.temperature)
    return told


def _curves(found: Thresholds) -> dict[str, Any]:
    """The stored counts as JSON: detections and right ones above each score, for each class."""
    detections, right = found.counts.tolist()
    steps = len(detections[0]) - 1 if detections else 0
    return {
        "scores": [step / steps for step in range(steps + 1)] if steps else [],
        "detections": dict(zip(found.class_names, detections)), "right": dict(zip(found.class_names, right)),
    }  # fmt: skip
