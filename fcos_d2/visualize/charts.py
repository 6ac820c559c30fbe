"""Charts as SVG that take the colors of the page around them, light or dark; matplotlib draws them.

matplotlib knows no variables, so a chart is drawn in colors that stand for some, and these are put in afterwards.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .fonts import font_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "SCHEMES",
    "Bars",
    "Line",
    "alone",
    "bar_chart",
    "calibration_chart",
    "line_chart",
    "page_colors",
    "scatter_chart",
    "scheme_css",
]

# Variables of a page -> their values in light and in dark.
SCHEMES = {
    "ink": ("#1d2530", "#e8ecf1"), "dim": ("#5c6773", "#a3adb8"), "grid": ("#dfe3e8", "#333c46"),
    "s1": ("#1f6feb", "#6cb2ff"), "s2": ("#d2521c", "#ff9a62"), "s3": ("#1a8a4a", "#5fd38d"),
    "s4": ("#8b3fc7", "#c99bf5"), "s5": ("#a97a00", "#f0c74a"),
}  # fmt: skip
_BEHIND = {"page": ("#f4f6f8", "#0e1216"), "card": ("#ffffff", "#171c22"), "soft": ("#eef1f4", "#222a32")}
_STAND_FOR = {name: f"#0b0c{i + 16:02x}" for i, name in enumerate(SCHEMES)}
_INK, _DIM, _GRID = (_STAND_FOR[name] for name in ("ink", "dim", "grid"))
_SERIES = [_STAND_FOR[f"s{i}"] for i in range(1, 6)]
_WIDTH, _HEIGHT = 4.7, 3.3  # inches; a chart is as wide as a telephone's screen


@dataclass(frozen=True)
class Line:
    """A curve: its name, (n,) x and y."""

    name: str
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Bars:
    """Bars of one color: their heights, `None` for one that is absent."""

    name: str
    heights: Sequence[float | None]


def scheme_css(dark: bool) -> str:
    """`SCHEMES`, and what lies behind charts on a page (page, card, soft), as variables of CSS."""
    return ";".join(f"--{name}:{pair[dark]}" for name, pair in {**SCHEMES, **_BEHIND}.items())


def page_colors() -> str:
    """CSS: the variables as the reader's system is, light or dark."""
    light, dark = scheme_css(False), scheme_css(True)
    return (
        f":root{{color-scheme:light dark;--line:var(--grid);{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )


def line_chart(
    lines: Sequence[Line], x: str, y: str, title: str, xlim: tuple[float, float] | None = (0, 1),
    ylim: tuple[float, float] | None = (0, 1.02), marks: Sequence[tuple[float, str]] = (),
) -> str:  # fmt: skip
    """Curves, with upright `marks` (place, what they are)."""

    def draw(axes: Axes) -> None:
        for line, color in zip(lines, _SERIES * len(lines)):
            few = len(line.x) <= 25
            axes.plot(line.x, line.y, color=color, label=line.name, linewidth=1.8, marker="o" if few else None, ms=3)
        for place, name in marks:
            axes.axvline(place, color=_DIM, linewidth=1, linestyle=":", label=name)
        axes.set(**{key: value for key, value in (("xlim", xlim), ("ylim", ylim)) if value})
        _legend(axes)

    return _chart(draw, x, y, title)


def bar_chart(names: Sequence[str], series: Sequence[Bars], y: str, title: str, top: float = 1.0) -> str:
    """Groups of upright bars with their heights above them."""

    def draw(axes: Axes) -> None:
        width = 0.8 / len(series)
        for k, (bars, color) in enumerate(zip(series, _SERIES * len(series))):
            places = np.arange(len(names)) - 0.4 + width * (k + 0.5)
            heights = [0.0 if height is None else height for height in bars.heights]
            axes.bar(places, heights, width * 0.92, color=color, label=bars.name)
            for place, height in zip(places, bars.heights):
                told = "none" if height is None else f"{height:.2f}"
                small = 7 if len(names) * len(series) > 11 else 8
                axes.text(place, (height or 0) + 0.015 * top, told, ha="center", fontsize=small, color=_INK)
        axes.set(ylim=(0, top * 1.08), xlim=(-0.6, len(names) - 0.4))
        _name_ticks(axes, names)
        if len(series) > 1:
            _legend(axes)

    return _chart(draw, "", y, title)


def scatter_chart(x: np.ndarray, y: np.ndarray, xlabel: str, ylabel: str, title: str) -> str:
    """Points of (n,) x and y in 0..1 with the diagonal; points are pixels, so that thousands take no room."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_DIM, linewidth=1, linestyle=":")
        axes.scatter(x, y, s=7, color="#3f8ae0", alpha=0.4, linewidths=0, rasterized=True)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))

    return _chart(draw, xlabel, ylabel, title)


def calibration_chart(bins: np.ndarray, names: Sequence[str], title: str) -> str:
    """The share of right detections over their mean score; bars are the shares of all detections.

    Args:
        bins: (n, 3, ranges): detections, sum of scores and right detections in each range of the score.
        names: of the n kinds of scores.
    """

    def draw(axes: Axes) -> None:
        count = bins[0, 0]
        width = 1 / len(count)
        shares = count / max(count.sum(), 1)
        axes.bar((np.arange(len(count)) + 0.5) * width, shares, width * 0.9, color=_GRID, label="share of detections")
        axes.plot([0, 1], [0, 1], color=_DIM, linewidth=1, linestyle=":")
        for name, (number, score, right), color in zip(names, bins, _SERIES):
            some = number > 0
            at = score[some] / number[some], right[some] / number[some]
            axes.plot(*at, color=color, linewidth=1.6, marker="o", ms=4, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        _legend(axes)

    return _chart(draw, "mean score", "share of right detections", title)


def alone(svg: str) -> str:
    """A chart as a file of its own: with its own colors, which follow the reader's scheme as well."""
    light, dark = (";".join(f"--{name}:{pair[k]}" for name, pair in SCHEMES.items()) for k in (0, 1))
    style = f"<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark};background:#14181d}}}}</style>"
    names = ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg", f"<svg{names}", 1).replace(">", f">{style}", 1)


def _legend(axes: Axes) -> None:
    """Below the axes, where no curve can be."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17),
            ncols=min(len(handles), 3), labelcolor=_INK,
        )  # fmt: skip


def _name_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Names below the bars, in a font that has their letters, turned where they are long."""
    from matplotlib.font_manager import FontProperties

    long = sum(len(name) + 2 for name in names) > 44
    shown = [font_for(name if len(name) <= 18 else f"{name[:17]}…") for name in names]
    axes.set_xticks(range(len(names)), [text for text, _ in shown])
    for label, (_, file) in zip(axes.get_xticklabels(), shown):
        label.set_fontproperties(FontProperties(fname=file, size=8))
        label.set(parse_math=False, color=_INK, rotation=40 if long else 0, ha="right" if long else "center")
        label.set_rotation_mode("anchor" if long else "default")


def _chart(draw: Callable[[Axes], None], x: str, y: str, title: str) -> str:
    """SVG without a size of its own, for a page that has the variables of `SCHEMES`; the title is its text for those
    who do not see it.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    draw(axes)
    text, font = font_for(title)
    face = FontProperties(fname=font, size=10.5, weight="bold")
    axes.set_title(text, fontproperties=face, color=_INK, loc="left").set_parse_math(False)
    axes.set_xlabel(x, color=_DIM, fontsize=9)
    axes.set_ylabel(y, color=_DIM, fontsize=9)
    axes.grid(True, color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.tick_params(labelsize=8, length=0, labelcolor=_DIM)
    data = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "fcos", "svg.image_inline": True}):
        figure.savefig(data, format="svg", metadata=nothing, dpi=120)
    return _for_page(data.getvalue(), title)


def _for_page(svg: str, title: str) -> str:
    """matplotlib's file as a part of a page: names of this chart alone, and the page's colors."""
    svg = svg[svg.index("<svg") :].strip()
    head, _, rest = svg.partition(">")
    box = re.search(r'viewBox="[^"]+"', head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    own = f"c{zlib.crc32(rest.encode()):x}"
    rest = re.sub(r'(\bid="|href="#|url\(#)', lambda found: f"{found[1]}{own}-", rest)
    for name, color in _STAND_FOR.items():
        rest = rest.replace(color, f"var(--{name})")
    label = re.sub(r'[<>&"]', " ", title)
    return f'<svg {box[0] if box else ""} role="img" aria-label="{label}">{rest}'
