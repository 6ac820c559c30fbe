"""What is counted, beside what the paper counted on COCO, and for each level and size of objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.audit.reach import Rule
from ..zoo.paper import PAPER as TABLES
from .assignment import Assignment
from .objects import Objects

__all__ = ["PAPER", "SIZES", "Quantity", "level_name", "paper_table", "plain_assignment", "plain_rule"]

# The setting of Tables 1 and 2: 800 pixels, at most 1333, the whole inside of a box positive.
_FPN = Rule(image_size=800, max_size=1333, center_radius=0.0)
_P4 = replace(_FPN, strides=(16,), size_ranges=((-1.0, math.inf),))
RADIUS = 1.5  # strides, of center sampling


@dataclass(frozen=True)
class Quantity:
    """A number of the paper: what it is, under which rule, and what was published for COCO minival, from 0 to 1."""

    name: str
    levels: str
    rule: Rule
    published: float | None = None


_NAMES = {
    "best possible recall": "best_possible_recall",
    "ambiguous": "ambiguous_share",
    "ambiguous across classes": "across_share",
}


def _published(name: str, levels: str) -> float | None:
    """What Table 1 or 2 says of a quantity; with center sampling neither does."""
    table = next(TABLES[one] for one in ("table1", "table2") if name in TABLES[one].columns)
    return table.rows[table.same[levels]][table.columns.index(name)]


PAPER: tuple[Quantity, ...] = tuple(
    Quantity(name, levels, replace(rule, center_radius=radius), None if radius else _published(name, levels))
    for radius in (0.0, RADIUS)
    for name in _NAMES
    for levels, rule in (("P4 alone", _P4), ("P3 to P7", _FPN))
)


def paper_table(parts: Mapping[str, Objects]) -> list[dict[str, Any]]:
    """The paper's Tables 1 and 2 for the parts of a data set.

    Returns:
        A row for each `Quantity`: "quantity", "levels", "center_radius" (strides, 0 without center sampling),
        "published", and a number from 0 to 1 for each part; None where it has no boxes.
    """
    rules = list(dict.fromkeys(row.rule for row in PAPER))
    found = {part: {rule: objects.assign(rule) for rule in rules} for part, objects in parts.items()}
    return [
        {
            "quantity": row.name, "levels": row.levels, "center_radius": row.rule.center_radius,
            "published": row.published,
            **{part: _number(getattr(those[row.rule], _NAMES[row.name])) for part, those in found.items()},
        }
        for row in PAPER
    ]  # fmt: skip


# COCO's sizes of objects: the largest area in pixels of the picture, of the box.
SIZES: Mapping[str, float] = {"small": 32.0**2, "medium": 96.0**2, "large": math.inf}


def level_name(stride: int) -> str:
    """p3 for a stride of 8."""
    return f"p{stride.bit_length() - 1}"


def plain_rule(rule: Rule) -> dict[str, Any]:
    """A rule as data for JSON, which has no infinity: null is no upper end."""
    return {**vars(rule), "strides": list(rule.strides), "size_ranges": _ends(rule)}


def _ends(rule: Rule) -> list[list[float | None]]:
    return [[low, high if math.isfinite(high) else None] for low, high in rule.size_ranges]


def plain_assignment(objects: Objects, found: Assignment) -> dict[str, Any]:
    """An assignment as data for JSON: shares from 0 to 1, and the positives of objects by level and size.

    Of the objects of each size, "positives" holds the mean number of locations of each level that are assigned to one,
    and "none" is the number of objects that no location is assigned to.
    """
    rule, names = found.rule, [level_name(stride) for stride in found.rule.strides]
    area = (objects.corners[:, 2:] - objects.corners[:, :2]).prod(1)
    size = np.searchsorted(list(SIZES.values()), area, side="right")
    groups = {name: size == place for place, name in enumerate(SIZES)} | {"all": np.ones(len(objects), bool)}
    levels = [
        {
            "level": name, "stride": stride, "size_range": ends, "objects": int((found.won[:, i] > 0).sum()),
            "positives": int(found.positives[i]), "ambiguous": int(found.ambiguous[i]),
            "ambiguous_across_classes": int(found.across[i]),
        }
        for i, (name, stride, ends) in enumerate(zip(names, rule.strides, _ends(rule)))
    ]  # fmt: skip
    return {
        "images": len(objects.table.images), "boxes": len(objects),
        "best_possible_recall": _number(found.best_possible_recall), "ambiguous": _number(found.ambiguous_share),
        "ambiguous_across_classes": _number(found.across_share), "positives": int(found.positives.sum()),
        "levels": levels, "sizes": {name: _of_size(found.won[those], names) for name, those in groups.items()},
    }  # fmt: skip


def _of_size(won: np.ndarray, names: list[str]) -> dict[str, Any]:
    each = won.sum(1)
    quantiles = np.quantile(each, (0.1, 0.5, 0.9)).tolist() if len(each) else [None] * 3
    return {
        "objects": len(each), "none": int((each == 0).sum()),
        "positives": dict(zip(names, won.mean(0).tolist() if len(each) else [None] * len(names))),
        "mean": float(each.mean()) if len(each) else None, **dict(zip(("tenth", "median", "ninetieth"), quantiles)),
    }  # fmt: skip


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
