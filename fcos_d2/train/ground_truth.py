"""The short form of `fcos check` that runs before every training, on the data as they are about to be trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig

from ..analysis.rules import rule_of
from ..data import DatasetNames
from ..data.audit import KINDS, brief
from ..data.audit.columns import Table

__all__ = ["check_labels", "rule_of"]

_TOLD = ("error", "warning")
_TOLD_ADVICE = ("tiny",)


def check_labels(names: DatasetNames, cfg: DictConfig, say: Callable[[str], Any], folder: str) -> dict[str, Any]:
    """Say in a line each what is wrong with a data set of one's own.

    Args:
        names: of its parts in Detectron2's catalog.
        cfg: what is trained: size of the input, levels and assigner.
        say: told what is found.
        folder: of the data set, as the user gave it.
    Returns:
        Part -> the counts of its annotations: `in` = `used` + `clipped` + the sum of `dropped` + `unassignable`.
    """
    there = {part: name for part, name in vars(names).items() if name is not None}
    tables = {part: _table(part, name) for part, name in there.items()}
    rule = rule_of(cfg)
    found, numbers = brief(tables, rule)
    for one in found:
        kind = KINDS[one.kind]
        if kind.level in _TOLD or one.kind in _TOLD_ADVICE:
            where = f"{one.part}: " if one.part else ""
            say(f"{where}{kind.title}: {one.count} of {one.of}{f' ({one.detail})' if one.detail else ''}.")
    if any(KINDS[one.kind].level in _TOLD for one in found):
        say(f"`fcos check {folder}` shows them.")
    counts = {}
    for part, name in there.items():
        report, (lost, clipped) = MetadataCatalog.get(name).fcos_report, numbers[part]
        dropped = {**report["left_out"], "crowd": report["crowds"]}
        counts[part] = {
            "in": report["annotations"], "used": report["objects"] - lost - clipped, "clipped": clipped,
            "dropped": dropped, "unassignable": lost,
        }  # fmt: skip
    return counts


def _table(part: str, name: str) -> Table:
    """A part as Detectron2's catalog has it."""
    records, classes = DatasetCatalog.get(name), MetadataCatalog.get(name).thing_classes
    return Table.of(part, Path(MetadataCatalog.get(name).json_file), {
        "images": [
            {"id": place, "file_name": one["file_name"], "width": one["width"], "height": one["height"]}
            for place, one in enumerate(records)
        ],
        "annotations": [
            {"id": 1, "image_id": place, "category_id": row["category_id"], "bbox": list(row["bbox"]),
             "iscrowd": row.get("iscrowd", 0)}
            for place, one in enumerate(records) for row in one["annotations"]
        ],
        "categories": [{"id": number, "name": title} for number, title in enumerate(classes)],
    })  # fmt: skip
