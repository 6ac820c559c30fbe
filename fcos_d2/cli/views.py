"""How results look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["ap_by_size", "best_checkpoint", "view_of_results", "view_of_scores"]

_COLUMNS = 5
_MOST_CLASSES = 24


def best_checkpoint(found: Mapping[str, Any], folder: Path) -> str:
    """The checkpoint of a training to detect with: model_best.pth where that has a higher AP than the last weights."""
    best = found["best"]["AP"]
    is_better = best is not None and best == best and best > (found["AP"] or 0)
    return str(folder / ("model_best.pth" if is_better else "model_final.pth"))


def view_of_scores(found: Mapping[str, Any], images: str | None) -> RenderableType:
    """The numbers of `evaluation.scores`, from 0 to 1, on some images, e.g. "60 val images"; None: on nothing."""
    if images is None:
        return Text("Nothing was evaluated: the config has no dataloader.test or no dataloader.evaluator.", "yellow")
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


def ap_by_size(found: Mapping[str, Any]) -> Text:
    """AP of small, medium and large objects, in a line."""
    return Text("   ".join(f"AP_{size} {_number(found[f'AP_{size}'])}" for size in ("small", "medium", "large")))


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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
