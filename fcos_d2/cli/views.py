"""How results look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = [
    "ap_by_size", "best_checkpoint", "view_of_detections", "view_of_recall", "view_of_results", "view_of_scores",
    "view_of_thresholds",
]  # fmt: skip

_COLUMNS = 5
_MOST_CLASSES = 24
_MOST_IMAGES, _MOST_OF_VIDEO = 100, 3  # images, and classes of a video, that are listed; all are in the files


def best_checkpoint(found: Mapping[str, Any], folder: Path) -> str:
    """The checkpoint of a training to detect with: model_best.pth where that has a higher AP than the last weights."""
    best = found["best"]["AP"]
    is_better = best is not None and best == best and best > (found["AP"] or 0)
    return str(folder / ("model_best.pth" if is_better else "model_final.pth"))


def view_of_scores(found: Mapping[str, Any], images: str | None) -> RenderableType:
    """The numbers of `evaluation.scores`, from 0 to 1, on some images, e.g. "60 val images"; None: on nothing."""
    if images is None:
        return Text("Nothing was evaluated: the config has no dataloader.test or no dataloader.evaluator.", "yellow")
    if "proposals" in found and found["AP"] is None:
        return view_of_recall(found, images)
    head = Text()
    for key in ("AP", "AP50", "AP75"):
        head.append(f"{key} ", "bold").append(_number(found[key]), "bold green" if key == "AP50" else "").append("   ")
    head.append(f"(0 to 1) on {images}", "dim")
    if found["AP"] is None:
        return head.append("\nThere is no object in these images, so there is no AP.", "yellow")
    cells = [f"{name} {_number(value)}" for name, value in found["per_class"].items()]
    if not 2 <= len(cells) <= _MOST_CLASSES:
        return head
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 3, 0, 0))
    for first in range(0, len(cells), _COLUMNS):
        table.add_row(*cells[first : first + _COLUMNS])
    return Group(head, Text("AP of each class", "dim"), table)


def view_of_recall(found: Mapping[str, Any], images: str) -> RenderableType:
    """The recall of region proposals, from 0 to 1, on some images: two numbers, and a table by size."""
    recall, head = found["proposals"], Text()
    for key in ("AR@100", "AR@1000"):
        head.append(f"{key} ", "bold").append(_number(recall[key]), "bold green").append("   ")
    head.append(f"(0 to 1) on {images}", "dim")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    for title in ("objects", "AR@100", "AR@1000"):
        table.add_column(title, justify="left" if title == "objects" else "right")
    for size in ("small", "medium", "large"):
        table.add_row(size, *(_number(recall[f"AR_{size}@{limit}"]) for limit in (100, 1000)))
    rows = [row for row in found.get("recall", ()) if row["AR"] is not None]
    told = "   ".join(f"{row['proposals']}: {row['recall']:.3f}" for row in rows)
    return Group(head, table, *([Text(f"recall at IoU 0.5 of the best proposals: {told}", "dim")] if told else []))


def ap_by_size(found: Mapping[str, Any]) -> Text:
    """AP of small, medium and large objects, in a line."""
    return Text("   ".join(f"AP_{size} {_number(found[f'AP_{size}'])}" for size in ("small", "medium", "large")))


def view_of_thresholds(found: Mapping[str, Any] | None) -> RenderableType:
    """The score threshold of each class, and what it gives; nothing where there are none."""
    if not found:
        return Text("")
    head = Text(f"\nThresholds for {found['goal']}", "bold")
    head.append(f": F1 {_number(found['f1'])}", "bold green")
    head.append(f", with 0.5 for all classes {_number(found['f1_at_0.5'])}")
    head.append(f" (IoU {found['iou']:g}, {found['dataset']})", "dim")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    for title in ("class", "objects", "threshold", "precision", "recall", "F1", "F1 at 0.5"):
        table.add_column(title, justify="left" if title == "class" else "right")
    rows = list(found["per_class"].items())
    for name, row in rows[:_MOST_CLASSES]:
        value = f"{row['threshold']:.3f}{'' if row['own'] else ' (for all)'}"
        numbers = [_number(row[key]) for key in ("precision", "recall", "f1", "f1_at_0.5")]
        table.add_row(name, str(row["boxes"]), value, *numbers)
    parts: list[RenderableType] = [head, table]
    if len(rows) > _MOST_CLASSES:
        parts.append(Text(f"and {len(rows) - _MOST_CLASSES} more classes, see thresholds.json", "dim"))
    scores = found["calibration"]
    calibration = f"Calibration error {_number(scores['error'])}"
    if scores["temperature"] is not None:
        calibration += f", {_number(scores['error_calibrated'])} with temperature {scores['temperature']:.2f}"
    return Group(*parts, Text(calibration, "dim"))


def view_of_results(
    title: str, numbers: RenderableType, folder: Path, files: Mapping[str, str], following: Sequence[str]
) -> RenderableType:
    """The end of a training: its files (name -> what it is) as far as they exist, and commands to run now."""
    table = Table.grid(padding=(0, 2))
    for name, description in files.items():
        if (folder / name).exists():
            table.add_row(f"  {name}", Text(description, "dim"))
    commands = [Text(f"  {line}", "cyan", no_wrap=True, overflow="ignore") for line in following]
    parts: list[RenderableType] = [Text(title, "bold"), numbers, Text(f"\n{folder}/", "bold"), table]
    return Group(*parts, *([Text("\nNow", "bold"), *commands] if commands else []))


def view_of_detections(
    seen: Sequence[Any], failed: Sequence[Mapping[str, str]], least: str, files: Sequence[Path]
) -> RenderableType:
    """What was found, an image or a video in each line, and where it is written; `seen` is a detection job's."""
    table = Table.grid(padding=(0, 2))
    for one in seen[:_MOST_IMAGES]:
        shown = one.counts.most_common(None if one.frames is None else _MOST_OF_VIDEO)
        objects = ", ".join(f"{count} {name}" for name, count in shown) or "nothing"
        if one.frames is not None:
            followed = f"{one.tracks} objects followed, " if one.tracks is not None else ""
            objects = f"{one.frames} frames, {followed}at most {objects}"
        table.add_row(Text(one.where, "bold"), objects, Text(str(one.picture or ""), "cyan"))
    if len(seen) > _MOST_IMAGES:
        table.add_row(Text(f"and {len(seen) - _MOST_IMAGES} more", "dim"))
    lines: list[RenderableType] = []
    if seen and not any(one.counts for one in seen):
        lines.append(Text(f"No score is above {least}; --threshold lowers it.", "dim"))
    if failed:
        lines.append(Text(f"{len(failed)} of {len(seen) + len(failed)} images could not be used.", "red"))
    lines += [Text(str(path), "cyan", no_wrap=True, overflow="ignore") for path in files]
    return Group(table, *lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
