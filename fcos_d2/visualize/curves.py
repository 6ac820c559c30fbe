"""The course of a training: losses, learning rate, AP."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FcosError
from .fonts import font_for
from .style import EDGE, FAINT, INK, class_color, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["course_of", "draw_curves", "loss_name"]


_SHARES = {
    "bbox/AP": "AP", "bbox/AP50": "AP50", "bbox/AP75": "AP75", "box_proposals/AR@100": "AR@100",
    "box_proposals/AR@1000": "AR@1000",
}  # fmt: skip


def draw_curves(metrics: str | Path | Iterable[Mapping[str, Any]], path: str | Path, title: str = "Training") -> Path:
    """Write a PNG with losses, learning rate and AP over the iterations.

    Args:
        metrics: lines of Detectron2's `JSONWriter` (`metrics.json`) or the file itself; every key may be missing, the
            last line may be cut off, and a resumed training overrules the iterations that it repeats.
        path: the PNG; its folder is made.
        title: heading of the picture.
    Returns:
        The path.
    Raises:
        FcosError: the metrics file is missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    points = course_of(metrics)
    losses = sorted({key for row in points.values() for key in row if "/" not in key and key.startswith("loss_")})
    panels = (
        ("loss", {"total_loss": "total", **{key: loss_name(key) for key in losses}}, None),
        ("learning rate", {"lr": "learning rate"}, None),
        ("AP (AR of proposals) on the validation images, 0 to 1", _SHARES, 100.0),
    )
    figure = Figure(figsize=(13.5, 4.3), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    text, font = font_for(title)
    face = FontProperties(fname=font, size=14, weight="bold")
    figure.suptitle(text, fontproperties=face, color=_hex(INK), x=0.008, ha="left").set_parse_math(False)
    for axes, (name, keys, whole) in zip(figure.subplots(1, 3), panels, strict=True):
        _draw_panel(axes, points, name, keys, whole)
    return save(path, lambda file: figure.savefig(file, format="png"))


def course_of(metrics: str | Path | Iterable[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """What is known of each iteration, from 0 on, in order; arguments and errors as of `draw_curves`."""
    return _by_iteration(_read_lines(metrics) if isinstance(metrics, (str, Path)) else metrics)


def _draw_panel(axes: Axes, points: Mapping, name: str, keys: Mapping[str, str], whole: float | None) -> None:
    """Draw the curves of some keys; shares of a `whole` go from 0 to 1, and the last one stands beside each curve.

    The first iteration is 1, as in the command line's texts. The legend lies below, where no curve can be.
    """
    from matplotlib.ticker import MaxNLocator

    axes.set_title(name, fontsize=11, color=_hex(INK), loc="left")
    axes.set_xlabel("iteration", color=_hex(FAINT))
    drawn, highest, ends = 0, 0.0, []
    for key, label in keys.items():
        curve = [(step + 1, row[key] / (whole or 1)) for step, row in points.items() if _is_finite(row.get(key))]
        if not curve:
            continue
        x, y = zip(*curve, strict=True)
        color = _hex(INK if key == "total_loss" else class_color((1, 0, 2, 4, 3, 5, 6)[drawn % 7]))
        sparse = len(curve) <= 25
        axes.plot(x, y, color=color, label=label, linewidth=1.8, marker="o" if sparse else None, markersize=4)
        ends.append((y[-1], x[-1], color))
        drawn, highest = drawn + 1, max(highest, *y)
    axes.grid(True, color=_hex(EDGE), linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_hex(EDGE))
    axes.tick_params(colors=_hex(FAINT), labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if not drawn:
        axes.text(0.5, 0.5, "nothing recorded yet", transform=axes.transAxes, ha="center", color=_hex(FAINT))
        axes.set(xticks=[], yticks=[])
        return
    axes.set_ylim((0, 1) if whole else (0, highest * 1.08 or 1.0))
    lowest = -math.inf
    for y, x, color in sorted(ends) if whole else ():  # numbers do not cover each other
        lowest = max(y, lowest + 0.05)
        axes.annotate(
            f"{y:.3f}", (x, lowest), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9, color=color,
            annotation_clip=False,
        )  # fmt: skip
    if name == "learning rate":
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(drawn, 4))


def _read_lines(path: str | Path) -> list[Mapping[str, Any]]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise FcosError(f"The metrics file {path} cannot be read: {error.strerror or error}.") from error
    rows = []
    for line in text.splitlines():
        with suppress(json.JSONDecodeError):  # an interrupted training leaves a cut line
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def _by_iteration(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Merge the lines of each iteration, in order; where iterations go back, the later lines count."""
    points: dict[int, dict[str, Any]] = {}
    last = -1
    for row in rows:
        if not _is_finite(row.get("iteration")):
            continue
        step = int(row["iteration"])
        if step < last:
            points = {known: values for known, values in points.items() if known < step}
        points.setdefault(step, {}).update(row)
        last = step
    return points


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def loss_name(key: str) -> str:
    """What a loss of the model is called in texts and pictures; those of other models keep their names."""
    if not key.startswith("loss_fcos_"):
        return key.removeprefix("loss_")
    short = key.removeprefix("loss_fcos_")
    return {"cls": "classification", "loc": "box", "ctr": "centerness", "iou": "IoU quality"}.get(short, short)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
