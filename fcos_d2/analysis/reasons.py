"""Why an object is assigned to no location, so that nothing is ever learned of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.audit.labels import example
from ..data.audit.reach import Rule, by_area, claims, taken
from .assignment import Assignment
from .objects import Objects
from .tables import level_name

__all__ = ["LOST", "Lost", "lost", "told"]

# Reason -> what it says of an object. The first that is true holds.
LOST: Mapping[str, str] = {
    "covered": "smaller boxes take every location in its region",
    "between locations": "it lies between the locations: none of the finest level is inside of it",
    "off centre": "no location inside of it lies within the center radius of its middle",
    "no level": "no level that answers for its size has a location inside of it",
}


@dataclass(frozen=True)
class Lost:
    """An object that no location is assigned to.

    Attributes:
        object: row of the `Objects`.
        reason: a key of `LOST`.
        sides: width and height, pixels of the input.
        by: rows of the objects that took its locations, where it is covered.
    """

    object: int
    reason: str
    sides: tuple[float, float]
    by: tuple[int, ...] = ()


def lost(objects: Objects, found: Assignment) -> list[Lost]:
    """Every object that no location is assigned to, in the order of the annotations, each with one reason."""
    rule, rows = found.rule, np.flatnonzero(~found.recalled)
    if not len(rows):
        return []
    boxes = objects.boxes(rule)
    sides = boxes[rows, 2:] - boxes[rows, :2]
    covered = _takers(boxes, objects.image, rows[found.alone[rows]], rule)
    finest = replace(rule, strides=rule.strides[:1], size_ranges=((-1.0, math.inf),), center_radius=0.0)
    inside, _ = taken(boxes[rows], objects.image[rows], finest)
    near, _ = taken(boxes[rows], objects.image[rows], replace(rule, center_radius=0.0))
    reasons = np.where(near, "off centre", "no level")
    reasons = np.where(inside, reasons, "between locations")
    reasons = np.where(found.alone[rows], "covered", reasons)
    return [
        Lost(row, str(reason), (float(width), float(height)), covered.get(row, ()))
        for row, reason, (width, height) in zip(rows.tolist(), reasons, sides)
    ]


def _takers(boxes: np.ndarray, image: np.ndarray, rows: np.ndarray, rule: Rule) -> dict[int, tuple[int, ...]]:
    """Row of a box that is covered -> rows of the boxes that have its locations."""
    some = np.flatnonzero(np.isin(image, image[rows]))
    some, wanted = some[by_area(boxes[some], rule)], np.zeros(len(boxes), bool)
    wanted[rows] = True
    found: dict[int, set[int]] = {row: set() for row in rows.tolist()}
    for level in range(len(rule.strides)):
        slots, claimants = claims(boxes[some], image[some], level, rule)
        claimants = some[claimants]
        there, first, place = np.unique(slots, return_index=True, return_inverse=True)
        pairs = np.stack((claimants, claimants[first][place] if len(there) else claimants), 1)
        for row, taker in np.unique(pairs[wanted[claimants]], axis=0).tolist():
            found[row].add(taker)
    return {row: tuple(sorted(takers)) for row, takers in found.items()}


def told(objects: Objects, one: Lost, rule: Rule) -> dict[str, Any]:
    """A lost object as data for JSON: its annotation, its size at the input, and why it is lost."""
    width, height = one.sides
    sentence = LOST[one.reason]
    if one.reason == "no level":
        stride = next((s for s, ends in zip(rule.strides, rule.size_ranges) if max(one.sides) / 2 <= ends[1]), 0)
        sentence += f": its {max(one.sides):.0f} px ask for {level_name(stride)} or above, its {min(one.sides):.1f} px"
        sentence += f" lie between locations {stride} px apart"
    found = example(objects.table, int(objects.row[one.object]), part=objects.table.name)
    found |= {"input_size": [round(width, 2), round(height, 2)], "reason": one.reason, "why": sentence}
    if one.by:
        found["covered_by"] = [example(objects.table, int(objects.row[row]))["annotation"] for row in one.by]
    return found
