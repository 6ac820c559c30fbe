"""How an analysis looks on a terminal: what can be learned, what cannot, and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["view"]

_EXAMPLES = 3


def view(found: Mapping[str, Any], output: Path | None) -> RenderableType:
    """The JSON data of `fcos analyze`, for people; shares in percent, as the paper has them."""
    parts = found["parts"]
    head = "; ".join(f"{part} {one['images']} pictures, {one['boxes']} boxes" for part, one in parts.items())
    rule = found["rule"]
    most = f", at most {rule['max_size']}" if rule["max_size"] else ""
    region = f"center radius {rule['center_radius']:g}" if rule["center_radius"] else "the whole box positive"
    lines: list[RenderableType] = [
        Text.assemble((str(found["data"]), "bold"), f" ({found['format']}): {head}"),
        Text("\nAs in the paper's Tables 1 and 2: 800 px, at most 1333 (percent)", "bold"),
        _paper(found["paper"]["rows"], list(parts)),
        Text(f"\n{found['model']}: {rule['image_size']} px{most}, {region}", "bold"),
    ]
    for part, one in parts.items():
        lines += [_summary(part, one), _sizes(one), _levels(one), Text("")]
    lines += _lost(found["unlearnable"], parts)
    if "suggestion" in found:
        lines += _suggestion(found["suggestion"], output)
    return Group(*lines)


def _table(*heads: str, left: int = 1) -> Table:
    """A table without lines, whose first columns are text."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < left else "right")
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None or share != share else f"{100 * share:.2f}"


def _paper(rows: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> Table:
    table = _table("", "", "COCO minival, published", *parts, left=2)
    radius = 0.0
    for row in rows:
        if row["center_radius"] != radius:
            radius = row["center_radius"]
            table.add_row(Text(f"with center sampling, radius {radius:g}", "dim"))
        name = row["quantity"] if row["levels"] == "P4 alone" else ""
        table.add_row(name, row["levels"], _percent(row["published"]), *(_percent(row[part]) for part in parts))
    return table


def _summary(part: str, one: Mapping[str, Any]) -> Text:
    return Text.assemble(
        f"{part}: best possible recall ", (f"{_percent(one['best_possible_recall'])} %", "bold green"),
        f", ambiguous {_percent(one['ambiguous'])} %, across classes {_percent(one['ambiguous_across_classes'])} %",
    )  # fmt: skip


def _sizes(one: Mapping[str, Any]) -> Table:
    """Locations of an object, by its size and their level."""
    names = [level["level"] for level in one["levels"]]
    table = _table("positives of an object", "objects", "without", "median", "mean", *(f"on {name}" for name in names))
    for size, row in one["sizes"].items():
        if row["objects"]:
            each = [f"{row['positives'][name]:.1f}" for name in names]
            numbers = (str(row["objects"]), str(row["none"]), f"{row['median']:g}", f"{row['mean']:.1f}", *each)
            table.add_row(size, *numbers)
    return table


def _levels(one: Mapping[str, Any]) -> Table:
    table = _table("level", "stride", "sizes, px", "objects", "positives", "ambiguous", "across classes", left=1)
    for row in one["levels"]:
        low, high = row["size_range"]
        count = max(row["positives"], 1)
        shares = (f"{100 * row[key] / count:.2f} %" for key in ("ambiguous", "ambiguous_across_classes"))
        sizes = f"from {max(low, 0):g}" if high is None else f"{max(low, 0):g} to {high:g}"
        table.add_row(row["level"], str(row["stride"]), sizes, str(row["objects"]), str(row["positives"]), *shares)
    return table


def _lost(found: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Iterator[RenderableType]:
    for part, counts in found["counts"].items():
        total = sum(counts.values())
        if not total:
            continue
        yield Text.assemble((f"{part}: ", "bold"), (str(total), "bold red"), f" of {parts[part]['boxes']} boxes are "
                            "never learned: no location is assigned to them")  # fmt: skip
        for reason in [reason for reason, count in counts.items() if count]:
            those = [one for one in found["objects"] if one["part"] == part and one["reason"] == reason]
            yield Text(f"    {reason}: {len(those)} ({those[0]['why'].partition(': its')[0]})", "yellow")
            for one in those[:_EXAMPLES]:
                width, height = one["input_size"]
                where = f"annotation {one['annotation']}, image {one['image']}, class {one['class']}"
                yield Text(f"    - {where}, {width:.1f} x {height:.1f} px at the input")
            if len(those) > _EXAMPLES:
                yield Text(f"    - ... ({len(those)} in all; --json and -o have them)", "dim")


def _suggestion(found: Mapping[str, Any], output: Path | None) -> Iterator[RenderableType]:
    width, height = found["picture"]
    yield Text(f"\nWhat would help ({found['part']}; GFLOPs for a picture of {width:g} x {height:g})", "bold")
    table = _table("", "recall, %", "ambiguous, %", "positives of an object", "GFLOPs")
    _row(table, "as it is", found["before"])
    for one in found["alone"]:
        _row(table, one["change"], one)
    if found["changes"]:
        _row(table, f"suggested: {'; '.join(found['changes'])}", found["after"], "bold green")
    yield table
    target, after = found["target"], found["after"]["best_possible_recall"]
    if not found["changes"]:
        enough = found["before"]["best_possible_recall"] >= target
        yield Text("Nothing needs to be changed." if enough else f"Nothing that was tried gets to {target:.0%}.")
        return
    if after < target and found["goal"] < target:
        yield Text(f"{target:.0%} cannot be reached; this is the cheapest that is near the best.", "yellow")
    left = ", ".join(f"{count} {reason}" for reason, count in found["left"].items() if count)
    if left:
        yield Text(f"Still never learned: {left}.")
    if "config" in found:
        yield Text(str(found["config"]), "cyan", no_wrap=True, overflow="ignore")
        yield Text("\nNow", "bold")
        yield Text(f"  {found['command']}", "cyan", no_wrap=True, overflow="ignore")
    elif output is None:
        yield Text("-o DIR writes it as a config.", "dim")


def _row(table: Table, name: str, one: Mapping[str, Any], style: str = "") -> None:
    gflops = "-" if one["gflops"] is None else f"{one['gflops']:.2f}"
    shares = (_percent(one["best_possible_recall"]), _percent(one["ambiguous"]))
    table.add_row(Text(name, style), *shares, f"{one['positives_per_object']:.1f}", gflops, style=style)
