"""A data set, a rule and what computing costs -> the cheapest change under which enough objects can be learned."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from ..data.audit.reach import Rule
from .assignment import Assignment
from .changes import Change, Possible
from .objects import Objects

__all__ = ["TARGET", "Suggestion", "alone", "search"]

TARGET = 0.99  # best possible recall that is aimed at
_NEAR = 0.001  # where that cannot be had, what is this near to the best will do
_BOXES = 2_000  # that a change is tried on; the one that is chosen is counted on all
_SIZES, _LARGEST = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0), 1333  # times the input size, and pixels
_FACTORS = (1.0, 2.0, 0.5)
_RADII = (None, 2.5, 0.0)


@dataclass(frozen=True)
class Suggestion:
    """What was found.

    Attributes:
        change: the cheapest that reaches the goal; `Change()` where the rule does so itself.
        goal: the recall that was looked for, from 0 to 1: what was aimed at, or near the best that can be had.
        target: what was aimed at.
    """

    change: Change
    goal: float
    target: float


def search(
    objects: Objects, rule: Rule, price: Callable[[Change], float], may: Possible, target: float = TARGET
) -> Suggestion:
    """Look for the cheapest change under which a share of the objects is assigned to some location.

    Levels and input size have a price; of equal prices that with the fewest changes counts, then the one with the
    fewest ambiguous locations.

    Args:
        objects: of the part that is trained on.
        rule: of the detector as it is.
        price: of a change of levels and input size, in whatever unit.
        may: what can be changed.
        target: the share, from 0 to 1.
    """
    some = objects.sample(_BOXES)

    @cache
    def tried(change: Change) -> Assignment:
        return some.assign(change.of(rule))

    paid = sorted(_paid(rule, may), key=price)
    free = sorted(_free(rule, may), key=len)

    def variants(base: Change) -> list[Change]:
        return [replace(base, range_factor=one.range_factor, center_radius=one.center_radius) for one in free]

    best = max(tried(change).best_possible_recall for change in variants(paid[-1]))
    goal = min(target, best - _NEAR)
    for base in paid:
        for _, group in itertools.groupby(variants(base), len):
            there = [change for change in group if tried(change).best_possible_recall >= goal]
            if there:
                return Suggestion(min(there, key=lambda change: tried(change).ambiguous_share), goal, target)
    return Suggestion(max(variants(paid[-1]), key=lambda change: tried(change).best_possible_recall), goal, target)


def alone(rule: Rule, may: Possible) -> list[Change]:
    """Single changes, to show what each does: a finer level, twice the input, other ranges, other regions."""
    found = [Change(finer=True)] if may.finer else []
    if may.size and (larger := _larger(rule)):
        found.append(Change(image_size=min(larger, key=lambda size: abs(size - 2 * rule.image_size))))
    return found + [one for one in _free(rule, may) if len(one) == 1]


def _paid(rule: Rule, may: Possible) -> Iterator[Change]:
    sizes = [None, *_larger(rule)] if may.size else [None]
    for size, finer in itertools.product(sizes, (False, True) if may.finer else (False,)):
        yield Change(finer, size)


def _larger(rule: Rule) -> list[int]:
    """Larger inputs, shorter side in pixels."""
    sizes = {16 * round(factor * rule.image_size / 16) for factor in _SIZES}
    return sorted(size for size in sizes if rule.image_size < size <= _LARGEST)


def _free(rule: Rule, may: Possible) -> list[Change]:
    if not may.assigner:
        return [Change()]
    factors = _FACTORS if len(rule.strides) > 1 else _FACTORS[:1]
    radii = [radius for radius in _RADII if radius != rule.center_radius]
    return [Change(range_factor=factor, center_radius=radius) for factor, radius in itertools.product(factors, radii)]
