"""How causes of errors, and the origin of detections, look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .thresholds import told

__all__ = ["view_of_errors", "view_of_explanation", "view_of_explanations"]

_MOST_DETECTIONS, _MOST_MISSES, _MOST_IMAGES = 40, 20, 20
_REPLAYED = {
    "exact": "the same boxes, to the bit", "rounding": "the same boxes, but for the last digits",
    "different": "other boxes",
}  # fmt: skip


def view_of_errors(found: Mapping[str, Any] | None) -> RenderableType:
    """A ledger's summary as two tables: why objects were missed, why detections are wrong; nothing without one."""
    if not found:
        return Text("")
    from ..evaluation.ledger import FALSE_ALARMS, MISSES

    least = told(found["thresholds"])
    rule = Text(f"\nDetections with a score above {least}, right from IoU {found['iou']:g} on", "dim")
    crowds = f", {found['in_crowds']} in crowd regions" if found["in_crowds"] else ""
    return Group(
        rule,
        _causes(f"{found['found']} of {found['objects']} objects found, {found['missed']} missed", "missed",
                found["misses"], found["misses_percent"], MISSES),
        _causes(f"{found['right']} of {found['detections']} detections right, {found['wrong']} wrong{crowds}", "wrong",
                found["false_alarms"], found["false_alarms_percent"], FALSE_ALARMS),
    )  # fmt: skip


def _causes(
    title: str, what: str, counts: Mapping[str, int], percent: Mapping[str, float], meaning: Mapping[str, str]
) -> RenderableType:
    head = Text(title, "bold")
    if not any(counts.values()):
        return head
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    for name, justify in ((what, "right"), ("share", "right"), ("cause", "left"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for cause in sorted(counts, key=lambda name: -counts[name]):
        if counts[cause]:
            table.add_row(str(counts[cause]), f"{percent[cause]:.1f} %", cause, Text(meaning[cause], "dim"))
    return Group(head, table)


def view_of_explanation(found: Mapping[str, Any], files: Sequence[Any]) -> RenderableType:
    """What `evaluation.explanation` says of an image, with the files that were written."""
    rows, judged = found["detections"], "objects" in found
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    titles = ["", "class", "score", "class score", "quality", "stride", "location", "rank", "suppressed"]
    for title in [*titles, *(["verdict"] if judged else [])]:
        table.add_column(title, justify="left" if title in ("class", "verdict") else "right")
    for number, row in enumerate(rows[:_MOST_DETECTIONS], start=1):
        numbers = [f"{row[key]:.3f}" for key in ("score", "class_score", "quality")]
        at = "{:.0f}, {:.0f}".format(*row["location"])
        verdict = [Text(row["verdict"], "" if row["verdict"] == "right" else "red")] if judged else []
        table.add_row(
            str(number), row["class"], *numbers, str(row["stride"]), at, f"{row['rank']} of {row['of']}",
            str(len(row["suppressed"])), *verdict,
        )  # fmt: skip
    parts: list[RenderableType] = [table if rows else Text(f"Nothing has a score above {told(found['thresholds'])}.")]
    if len(rows) > _MOST_DETECTIONS:
        parts.append(Text(f"and {len(rows) - _MOST_DETECTIONS} more, see --json", "dim"))
    fates = ", ".join(f"{count} {name}" for name, count in found["candidates"].items() if name != "passed" and count)
    head = f"{found['candidates']['passed']} candidates passed the score threshold"
    parts.append(Text(f"{head}: {fates}" if fates else head, "dim"))
    if judged:
        parts += _missed(found)
    parts.append(Text(f"Selection recomputed from the record gives {_REPLAYED[found['replay']]}.", "dim"))
    return Group(*parts, *(Text(str(path), "cyan", no_wrap=True, overflow="ignore") for path in files))


def view_of_explanations(images: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The same of several images, each under its name."""
    parts: list[RenderableType] = []
    for found in images[:_MOST_IMAGES]:
        title = Text(f"\n{found['image']}", "bold", no_wrap=True, overflow="ignore")
        parts += [title, view_of_explanation(found, [found["picture"]] if found["picture"] else [])]
    if len(images) > _MOST_IMAGES:
        parts.append(Text(f"\nand {len(images) - _MOST_IMAGES} more images, see --json", "dim"))
    return Group(*parts)


def _missed(found: Mapping[str, Any]) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(f"\n{found['found']} of {found['objects']} objects found", "bold")]
    for row in found["missed"][:_MOST_MISSES]:
        box = ", ".join(f"{x:.0f}" for x in row["box"])
        lines.append(Text.assemble("missed ", (row["class"], "bold"), f" [{box}]: ", (row["cause"], "red")))
        lines.append(Text(f"    {row['detail']}", "dim"))
    if len(found["missed"]) > _MOST_MISSES:
        lines.append(Text(f"and {len(found['missed']) - _MOST_MISSES} more, see --json", "dim"))
    wrong = [row for row in found["detections"] if "detail" in row]
    for row in wrong[:_MOST_MISSES]:
        what = f"{row['class']} {row['score']:.2f}"
        lines.append(Text.assemble("wrong ", (what, "bold"), ": ", (row["verdict"], "red")))
        lines.append(Text(f"    {row['detail']}", "dim"))
    return lines
