"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .fonts import font_for
from .style import EDGE, FAINT, INK, class_name, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_confusion"]

_MOST = 24  # classes that can be read in one picture


def draw_confusion(
    matrix: np.ndarray, names: Sequence[str], path: str | Path, title: str = "Confusion", rule: str = ""
) -> Path:
    """Write a PNG of a confusion matrix: numbers are counts, colors are shares of the objects of a class.

    In the last row, colors are shares of what was found of a class.

    Of many classes those with the most objects are shown, the others together in one row and column.

    Args:
        matrix: (K + 1, K + 1) counts, rows the truth, columns what was found, the last ones background.
        names: of the K classes.
        path: the PNG; its folder is made.
        title: heading of the picture.
        rule: how was counted, a line below the heading.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    matrix, labels = _legible(np.asarray(matrix), names)
    side = len(labels)
    cell = 0.62 if side <= 8 else 0.46
    longest = max(map(len, labels))
    size = max(4.6, side * cell + 1.2 + longest * 0.085), max(4.2, side * cell + 1.6 + longest * 0.06)
    figure = Figure(figsize=size, dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    text, font = font_for(title)
    heading = FontProperties(fname=font, size=14, weight="bold")
    figure.suptitle(text, fontproperties=heading, color=_hex(INK), x=0.01, ha="left").set_parse_math(False)
    axes = figure.subplots()
    axes.set_title(rule, fontsize=9, color=_hex(FAINT), loc="left")
    _draw_cells(axes, matrix)
    for axis, word in ((axes.xaxis, "found"), (axes.yaxis, "truth")):
        axis.set_ticks(range(side), labels)
        axis.set_label_text(word, color=_hex(FAINT))
        for label, name in zip(axis.get_ticklabels(), labels, strict=True):
            shown, file = font_for(name)
            label.set_text(shown)
            label.set(parse_math=False, color=_hex(INK))
            label.set_fontproperties(FontProperties(fname=file, size=9))
    axes.tick_params(length=0)
    turned = longest * 0.085 > cell
    for label in axes.get_xticklabels():
        label.set(rotation=45 if turned else 0, ha="right" if turned else "center")
        label.set_rotation_mode("anchor" if turned else "default")
    return save(path, lambda file: figure.savefig(file, format="png"))


def _draw_cells(axes: Axes, matrix: np.ndarray) -> None:
    """Counts in squares whose depth is the share of the row; where nothing is there, of the column."""
    side = len(matrix)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shares[-1] = matrix[-1] / np.maximum(matrix.sum(0), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(np.arange(-0.5, side), minor=True)
    axes.set_yticks(np.arange(-0.5, side), minor=True)
    axes.grid(True, which="minor", color=_hex(EDGE), linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    for row, column in zip(*np.nonzero(matrix)):
        count, dark = int(matrix[row, column]), shares[row, column] > 0.55
        shown = str(count) if count < 10_000 else f"{count / 1000:.0f}k"
        small = 9.5 if side <= 8 else 8
        axes.text(column, row, shown, ha="center", va="center", fontsize=small, color="white" if dark else _hex(INK))
    for end in (axes.axhline, axes.axvline):
        end(side - 1.5, color=_hex(FAINT), linewidth=1.2)  # background stands apart


def _legible(matrix: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The matrix of the classes that have a place, and the names of its rows."""
    known = len(names)
    labels = [class_name(i, names) for i in range(known)]
    if known <= _MOST:
        return matrix, [*labels, "background"]
    ranked = np.argsort(-matrix[:known].sum(1), kind="stable")
    shown = sorted(ranked[: _MOST - 1].tolist())
    rest = sorted(ranked[_MOST - 1 :].tolist())
    groups = [*([i] for i in shown), rest, [known]]
    small = np.array([[matrix[np.ix_(a, b)].sum() for b in groups] for a in groups])
    return small, [*(labels[i] for i in shown), f"{len(rest)} others", "background"]


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
