"""Recall of region proposals over their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .fonts import font_for
from .style import EDGE, FAINT, INK, class_color, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_recall"]

_COLORS = (1, 0, 2, 4, 3, 5, 6)
_PANELS = {"AR": "AR, the mean of IoU 0.5 to 0.95", "recall": "recall at IoU 0.5"}


def draw_recall(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, title: str = "Recall of region proposals"
) -> Path:
    """Write a PNG with a curve for each generator of proposals, in two panels.

    Args:
        curves: name -> rows of `evaluation.proposals.Recall.curve`: "proposals", "AR" and "recall", 0..1.
        path: the PNG; its folder is made.
        title: heading of the picture.
    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    text, font = font_for(title)
    face = FontProperties(fname=font, size=14, weight="bold")
    heading = figure.suptitle(text, fontproperties=face, x=0.008, ha="left")
    heading.set_parse_math(False)
    heading.set_color(_rgb(INK))
    for axes, (key, name) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items()):
        _draw_panel(axes, curves, key, name)
    return save(path, lambda file: figure.savefig(file, format="png"))


def _draw_panel(axes: Axes, curves: Mapping[str, Sequence[Mapping[str, Any]]], key: str, name: str) -> None:
    """The curves of one number; the two numbers that papers give stand beside their points."""
    counts: list[int] = []
    told: dict[int, list[tuple[float, Any]]] = {}
    for place, (label, rows) in enumerate(curves.items()):
        known = [(row["proposals"], row[key]) for row in rows if row[key] is not None]
        if not known:
            continue
        color = _rgb(class_color(_COLORS[place % len(_COLORS)]))
        axes.plot(*zip(*known), color=color, label=label, linewidth=1.8, marker="o", markersize=4)
        counts = [count for count, _ in known]
        for count, value in known:
            told.setdefault(count, []).append((value, color))
    for count in (100, 1000):
        _tell(axes, count, sorted(told.get(count, ()), reverse=True))
    axes.set_title(name, fontsize=11, color=_rgb(INK), loc="left")
    axes.set_xlabel("proposals of an image", color=_rgb(FAINT))
    if not counts:
        axes.text(0.5, 0.5, "there is no object", transform=axes.transAxes, ha="center", color=_rgb(FAINT))
        axes.set(xticks=[], yticks=[])
        return
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.grid(True, color=_rgb(EDGE), linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_rgb(FAINT), labelsize=9)
    for entry in axes.legend(frameon=False, fontsize=9, loc="lower right").get_texts():
        entry.set_parse_math(False)


def _tell(axes: Axes, count: int, values: Sequence[tuple[float, Any]]) -> None:
    """Numbers beside their points, with their colors: the highest above the curves, the others below the lowest one."""
    for place, (value, color) in enumerate(values):
        at, down = (value, -6) if place == 0 else (values[-1][0], 4 + 11 * place)
        axes.annotate(
            f"{value:.3f}", (count, at), xytext=(0, -down), textcoords="offset points", color=color, fontsize=9,
            ha="center", annotation_clip=False,
        )  # fmt: skip


def _rgb(color: tuple[int, int, int]) -> Any:
    return tuple(part / 255 for part in color)
