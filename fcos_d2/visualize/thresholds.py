"""Precision, recall and F1 over the score threshold, and how often detections of a score are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .fonts import font_for
from .style import EDGE, FAINT, INK, class_color, class_name, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panel", "draw_thresholds"]

_MOST, _COLUMNS = 8, 4  # panels of classes, those with the most objects; panels in a row


@dataclass(frozen=True)
class Panel:
    """What is kept above each score, of one class.

    Attributes:
        threshold: the score that was chosen, 0..1.
        own: whether it was chosen for this class alone.
        boxes: objects that are there.
        kept, right: (n,) detections above n scores that are evenly spread from 0 to 1, and how many are right.
    """

    name: str
    threshold: float
    own: bool
    boxes: int
    kept: np.ndarray
    right: np.ndarray


def draw_thresholds(
    panels: Sequence[Panel], reliability: np.ndarray, path: str | Path, title: str, goal: str = "f1",
    temperature: float | None = None,
) -> Path:  # fmt: skip
    """Write a PNG with a panel for each class, and a reliability diagram.

    Args:
        panels: of the classes; of more than eight those with the most objects are drawn.
        reliability: (2, 3, bins): detections, sum of scores and right detections in each range of the score; of scores
            as they are, then of calibrated ones.
        path: the PNG; its folder is made.
        title: heading of the picture.
        goal: what the thresholds were chosen for.
        temperature: of the calibrated scores; `None` where there are none.
    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    shown = sorted(sorted(range(len(panels)), key=lambda k: -panels[k].boxes)[:_MOST])
    columns = min(_COLUMNS, len(shown) + 1)
    rows = -(-(len(shown) + 1) // columns)
    figure = Figure(figsize=(3.5 * columns, 0.9 + 3.3 * rows), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    some = f", {len(shown)} of {len(panels)} classes" if len(shown) < len(panels) else ""
    text, font = font_for(f"{title}: thresholds for {goal}{some}")
    face = FontProperties(fname=font, size=14, weight="bold")
    figure.suptitle(text, fontproperties=face, color=_rgb(INK), x=0.008, ha="left").set_parse_math(False)
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes, k in zip(grid, shown):
        _draw_class(axes, panels[k])
    _draw_reliability(grid[len(shown)], np.asarray(reliability), temperature)
    for axes in grid[len(shown) + 1 :]:
        axes.set_axis_off()
    if shown:
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower left", ncols=len(labels))
    return save(path, lambda file: figure.savefig(file, format="png"))


def _draw_class(axes: Axes, panel: Panel) -> None:
    kept, right = np.asarray(panel.kept, float), np.asarray(panel.right, float)
    scores = np.linspace(0, 1, len(kept))
    f1 = 2 * right / np.maximum(kept + panel.boxes, 1)
    curves = (
        ("precision", np.divide(right, kept, out=np.full(len(kept), np.nan), where=kept > 0), class_color(1), 1.5),
        ("recall", right / panel.boxes if panel.boxes else np.full(len(kept), np.nan), class_color(2), 1.5),
        ("F1", f1, INK, 2.2),
    )
    for label, y, color, width in curves:
        axes.plot(scores, y, color=_rgb(color), label=label, linewidth=width)
    axes.axvline(panel.threshold, color=_rgb(class_color(0)), linewidth=1.6, label="threshold")
    axes.axvline(0.5, color=_rgb(FAINT), linewidth=1.0, linestyle=":", label="0.5")
    at = float(np.interp(panel.threshold, scores, f1))
    told = f"{panel.threshold:.3f}{'' if panel.own else ' (for all)'}, F1 {at:.3f}, {panel.boxes} objects"
    _style(axes, class_name(0, [panel.name]), told, "score threshold")


def _draw_reliability(axes: Axes, bins: np.ndarray, temperature: float | None) -> None:
    """The share of right detections over their mean score; bars are the shares of all detections."""
    count = bins[0, 0]
    width = 1 / len(count)
    if count.sum():
        axes.bar(
            (np.arange(len(count)) + 0.5) * width, count / count.sum(), width * 0.92, color=_rgb(EDGE),
            label="share of detections",
        )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=_rgb(FAINT), linewidth=1.0, linestyle=":")
    kinds = [("scores", INK)] + ([(f"temperature {temperature:.2f}", class_color(1))] if temperature else [])
    for (label, color), (number, score, right) in zip(kinds, bins):
        some = number > 0
        error = np.abs(score - right).sum() / max(number.sum(), 1)
        axes.plot(
            score[some] / number[some], right[some] / number[some], color=_rgb(color), linewidth=1.6, marker="o",
            markersize=4, label=f"{label}: error {error:.3f}",
        )  # fmt: skip
    _style(axes, "Reliability", "share of right detections, all classes", "score")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17))  # where no curve can be


def _style(axes: Axes, title: str, told: str, label: str) -> None:
    from matplotlib.font_manager import FontProperties

    text, font = font_for(title)
    face = FontProperties(fname=font, size=11, weight="bold")
    axes.set_title(text, fontproperties=face, color=_rgb(INK), loc="left", pad=20).set_parse_math(False)
    axes.text(0, 1.03, told, transform=axes.transAxes, fontsize=8.5, color=_rgb(FAINT))
    axes.set_xlabel(label, color=_rgb(FAINT), fontsize=9)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(True, color=_rgb(EDGE), linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_rgb(EDGE))
    axes.tick_params(colors=_rgb(FAINT), labelsize=8.5)


def _rgb(color: tuple[int, int, int]) -> Any:
    """A color as matplotlib has it."""
    return tuple(part / 255 for part in color)
