"""Draw AP50 over the iterations of trainings: `python -m projects_tools.compare_courses OUT.png NAME=FOLDER ...`.

A folder is an output folder of `fcos train`; the name stands in the legend. For docs/images/fine-tuning.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from fcos_d2.visualize.style import EDGE, FAINT, INK, class_color, save

_WANTED = 0.85  # a line at this AP50


def course(folder: Path) -> list[tuple[int, float]]:
    """(iterations, AP50 from 0 to 1) of each evaluation of a training."""
    rows = map(json.loads, (folder / "metrics.json").read_text(encoding="utf-8").splitlines())
    return [(row["iteration"] + 1, row["bbox/AP50"] / 100) for row in rows if "bbox/AP50" in row]


def reached(points: list[tuple[int, float]], wanted: float) -> float | None:
    """Iterations after which a course is at an AP50, between two evaluations by a straight line; None if never."""
    before = (0, 0.0)
    for step, value in points:
        if value >= wanted:
            share = (wanted - before[1]) / (value - before[1])
            return before[0] + share * (step - before[0])
        before = (step, value)
    return None


def draw(courses: Mapping[str, list[tuple[int, float]]], path: Path) -> None:
    """Write a PNG of the courses by their names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def color(rgb: tuple[int, int, int]) -> str:
        return "#{:02x}{:02x}{:02x}".format(*rgb)

    figure = Figure(figsize=(8, 4.2), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axhline(_WANTED, color=color(FAINT), linewidth=1, linestyle="--")
    for i, (name, points) in enumerate(courses.items()):
        at, line = reached(points, _WANTED), color(class_color((1, 0, 2, 4, 3, 5)[i % 6]))
        label = name if at is None else f"{name}: {_WANTED} after {at:.0f} iterations"
        axes.plot(*zip(*points, strict=True), color=line, linewidth=1.8, marker="o", markersize=4, label=label)
        if at is not None:
            axes.plot([at, at], [0, _WANTED], color=line, linewidth=1, linestyle=":")
    axes.set(xlim=(0, None), ylim=(0, 1), xlabel="iteration", ylabel="AP50 on the validation images, 0 to 1")
    axes.grid(True, color=color(EDGE), linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.label.set_color(color(INK))
    axes.legend(frameon=False, loc="lower right")
    save(path, lambda file: figure.savefig(file, format="png"))


def main(words: list[str]) -> None:
    """Draw what the command line names."""
    target, *named = words
    folders = dict(word.split("=", 1) for word in named)
    draw({name: course(Path(folder)) for name, folder in folders.items()}, Path(target))


if __name__ == "__main__":
    main(sys.argv[1:])
