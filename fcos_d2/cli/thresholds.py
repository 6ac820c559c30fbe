"""Options about score thresholds: how they are chosen, and which ones count."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from . import options as shared

__all__ = ["goal", "iou", "save", "single", "threshold", "threshold_of_errors", "told"]


def single(least: Mapping[str, float]) -> float | None:
    """The threshold that all classes have in common; None where they differ, or there is none."""
    return next(iter(least.values())) if len(set(least.values())) == 1 else None


def told(least: Mapping[str, float]) -> str:
    """Thresholds of classes in words: 0.5, or "the threshold of its class, 0.31 to 0.47"."""
    lowest, highest = min(least.values(), default=0.5), max(least.values(), default=0.5)
    return f"{lowest:g}" if lowest == highest else f"the threshold of its class, {lowest:g} to {highest:g}"


def _goal(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, float] | None:
    """("f1", 1.0), ("precision", 0.9) or ("recall", 0.9)."""
    if value in (None, "f1"):
        return ("f1", 1.0) if value else None
    name, _, number = str(value).partition("=")
    with suppress(ValueError):
        if name in ("precision", "recall") and 0 < float(number) <= 1:
            return name, float(number)
    raise click.BadParameter(f"{value!r} is not f1, precision=P or recall=R, with P and R above 0, at most 1.")


def _new_checkpoint(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix not in (".pth", ".pt"):
        raise click.BadParameter(f"{value} is no name of a checkpoint: let it end in .pth.")
    if value is not None and value.exists():
        raise click.BadParameter(f"{value} exists, and nothing is overwritten: choose another name.")
    return value


def _scores(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    """A score for all classes, or {class: score}, `None` being all others; `None` if nothing is given."""
    found: dict[str | None, float] = {}
    for text in values:
        name, has, number = text.rpartition("=")
        score = -1.0
        with suppress(ValueError):
            score = float(number)
        if not 0 <= score < 1:
            raise click.BadParameter(f"{text!r} is no score from 0 to 1 (1 excluded), such as 0.3 or cat=0.3.")
        found[name if has else None] = score
    return found.get(None) if set(found) <= {None} else found


goal = click.option(
    "--thresholds", "goal", metavar="f1|precision=P|recall=R", callback=_goal,
    help="Choose a score threshold for each class: of the best F1, or with that precision or recall (0 to 1).",
)  # fmt: skip
iou = click.option(
    "--iou", type=click.FloatRange(0, 1, min_open=True),
    help="Overlap from which on a detection is right, for thresholds and --errors.  [default: 0.5]",
)  # fmt: skip
save = shared.path(
    "--save", callback=_new_checkpoint,
    help="With --thresholds: a copy of the checkpoint that holds them; that of --weights stays as it is.",
)  # fmt: skip
threshold_of_errors = click.option(
    "--threshold", multiple=True, metavar="SCORE|CLASS=SCORE", callback=_scores,
    help="With --errors: look at detections with a higher score; of one class with its name, repeatable.  [default: "
    "what the checkpoint holds for each class, else 0.5]",
)  # fmt: skip
threshold = click.option(
    "--threshold", multiple=True, metavar="SCORE|CLASS=SCORE", callback=_scores,
    help="Report what has a higher score; of one class with its name, repeatable.  [default: what the checkpoint holds "
    "for each class, else 0.5]",
)  # fmt: skip
