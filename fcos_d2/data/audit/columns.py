"""The ground truth of a part as columns of numbers, whatever the file says: nothing is refused, nothing is mended."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..layout import UNREADABLE
from ..ledger import BEYOND
from ..masks import PLAIN
from ..meant import LARGEST_ID, flag, identity, number

__all__ = ["LARGEST_SIDE", "REASONS", "Table"]

LARGEST_SIDE = 1e6  # pixels, as `clean` has it

# Why an annotation trains nothing, in the order in which it is asked. The first four training drops by
# itself; the others make it refuse the file.
REASONS = (
    "no box",
    "degenerate",
    "crowd",
    "unreadable",
    "not four numbers",
    "unknown image",
    "unknown category",
    "no flag",
)


@dataclass
class Table:
    """One part of a data set.

    Attributes:
        name: of the part.
        source: its annotation file.
        rows, images, categories: the objects of the file, in its order.
        box: (M, 4) float64 x, y, width, height; NaN where there is no number.
        state: (M,) what `bbox` is: 0 four numbers, 1 absent, null or empty, 2 anything else, 3 what its reader cannot
            read.
        image, category: (M,) rows of `images` and `categories`; -1 where there is none.
        crowd: (M,) int8, 1 for crowd regions, -1 where a flag is neither 0 nor 1.
        size: (N, 2) width and height of the images; NaN where these are no sizes.
        ids: the images and categories by their ids; the first of those with one id.
    """

    name: str
    source: Path
    rows: list[dict]
    images: list[dict]
    categories: list[dict]
    box: np.ndarray = field(repr=False)
    state: np.ndarray = field(repr=False)
    image: np.ndarray = field(repr=False)
    category: np.ndarray = field(repr=False)
    crowd: np.ndarray = field(repr=False)
    size: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, name: str, source: Path, coco: dict[str, Any]) -> Table:
        """The columns of a COCO JSON object whose three lists are there and hold objects."""
        rows, images, categories = coco["annotations"], coco["images"], coco["categories"]
        box, state = _boxes([row.get("bbox") for row in rows])
        state[[place for place, row in enumerate(rows) if UNREADABLE in row]] = 3
        size = np.array([[_side(row.get("width")), _side(row.get("height"))] for row in images], float).reshape(-1, 2)
        size[np.isnan(size).any(1)] = np.nan
        return cls(
            name, source, rows, images, categories, box, state, _places(rows, "image_id", images),
            _places(rows, "category_id", categories), _flags(rows), size,
        )  # fmt: skip

    @property
    def frame(self) -> np.ndarray:
        """(M, 2) size of the image of each annotation; NaN where it has none."""
        known = np.concatenate((self.size, np.full((1, 2), np.nan)))
        return known[self.image]

    @property
    def corners(self) -> np.ndarray:
        """(M, 4) x1, y1, x2, y2 of the boxes."""
        with np.errstate(invalid="ignore"):  # infinite numbers of either sign
            return np.concatenate((self.box[:, :2], self.box[:, :2] + self.box[:, 2:]), 1)

    @property
    def class_names(self) -> list[str]:
        return [str(row.get("name")) for row in self.categories]

    def reasons(self) -> dict[str, np.ndarray]:
        """Reason -> (M,) bool, the annotations that train nothing for it; each stands in one of them at most."""
        with np.errstate(invalid="ignore"):
            finite = (np.abs(self.box) < LARGEST_SIDE).all(1)
            degenerate = ~(finite & (self.box[:, 2:] > 0).all(1))
            frame = self.frame
            outside = (self.box[:, :2] >= frame).any(1) | (self.box[:, :2] + self.box[:, 2:] <= 0).any(1)
        asked = {
            "unreadable": self.state == 3,
            "not four numbers": self.state == 2,
            "no box": self.state == 1,
            "degenerate": degenerate,
            "unknown image": self.image < 0,
            "unknown category": self.category < 0,
            "outside": outside,
            "no flag": self.crowd < 0,
            "crowd": self.crowd > 0,
        }
        left = np.ones(len(self.rows), bool)
        found = {reason: np.zeros(len(self.rows), bool) for reason in REASONS}
        for reason, those in asked.items():
            found["degenerate" if reason == "outside" else reason] |= those & left
            left &= ~those
        return found

    def objects(self) -> np.ndarray:
        """(M,) bool, the annotations that are trained on."""
        return ~np.logical_or.reduce(list(self.reasons().values())) if self.rows else np.zeros(0, bool)

    def beyond(self) -> np.ndarray:
        """(M,) pixels that a box reaches beyond its image, at its worst side; below 0 inside, NaN without an image."""
        if not self.rows:
            return np.zeros(0)
        with np.errstate(invalid="ignore"):
            return np.concatenate((-self.box[:, :2], self.box[:, :2] + self.box[:, 2:] - self.frame), 1).max(1)

    def clipped(self) -> np.ndarray:
        """(M,) bool, the objects that reach more than `BEYOND` beyond their image."""
        return self.objects() & (self.beyond() > BEYOND)


def _boxes(given: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """(M, 4) numbers and (M,) states."""
    state = np.zeros(len(given), np.int8)
    lists = all(type(one) is list and len(one) == 4 for one in given)
    if lists and PLAIN.issuperset(map(type, itertools.chain.from_iterable(given))):
        try:
            return np.array(given, float).reshape(-1, 4), state
        except OverflowError:
            pass  # a whole number without end
    box = np.full((len(given), 4), np.nan)
    for i, one in enumerate(given):
        if one is None or one == [] or one == "":
            state[i] = 1
            continue
        numbers = [number(value) for value in one] if isinstance(one, list) else []
        if len(numbers) != 4 or None in numbers:
            state[i] = 2
        else:
            box[i] = numbers
    return box, state


def _places(rows: list[dict], key: str, listed: list[dict]) -> np.ndarray:
    """(M,) place in a list of what a key names; -1 where that is nothing."""
    places: dict[Any, int] = {}
    for place, row in enumerate(listed):
        meant = identity(row.get("id"))
        if meant is not None and (key == "image_id" or (isinstance(meant, int) and abs(meant) <= LARGEST_ID)):
            places.setdefault(meant, place)
    named = (row.get(key) for row in rows)
    find = places.get
    found = (find(one if type(one) is int else identity(one), -1) for one in named)
    return np.fromiter(found, np.int64, len(rows))


def _flags(rows: list[dict]) -> np.ndarray:
    flags = np.zeros(len(rows), np.int8)
    for i, row in enumerate(rows):
        given = row.get("iscrowd")
        if (given is None or (type(given) is int and given == 0)) and "ignore" not in row:
            continue
        both: Any = [flag(row.get(key)) for key in ("iscrowd", "ignore")]
        flags[i] = -1 if None in both else max(both)
    return flags


def _side(value: Any) -> float:
    side = number(value)
    return side if side is not None and 0 < side < LARGEST_SIDE else np.nan
