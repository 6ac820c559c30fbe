"""What a reader of a format puts together: COCO's JSON object, with a row for every label that the files have."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..layout import PLACE, UNREADABLE
from ..pictures import Pictures, size_of_file

__all__ = ["Labels", "bounds", "natural", "turned", "unite_classes"]

_FOUND = "fcos_classes_found"  # in an object whose classes are those of its labels: the names that come first, if any
_DECIMALS = 9  # of a pixel: as much as float64 holds of a share of an image, so whole pixels come back as whole numbers


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A key that puts "class_2" before "class_10"."""
    return [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in re.split(r"(\d+)", name)[:50]]


def bounds(points: Iterable[float]) -> list[float]:
    """x, y, width and height around points x1, y1, x2, y2, ...; NaN where a point has one."""
    flat = list(points)
    xs, ys = flat[::2], flat[1::2]
    if any(value != value for value in flat):
        return [float("nan")] * 4
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def turned(x: float, y: float, width: float, height: float, degrees: float) -> list[float]:
    """x, y, width and height around a box that is turned about its center (x, y)."""
    angle = math.radians(degrees)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    wide, high = width * cos + height * sin, width * sin + height * cos
    return [x - wide / 2, y - high / 2, wide, high]


class Labels:
    """Images and labels of one part.

    Args:
        folder: what names of images are relative to.
        classes: id -> name where the format lists its classes. Else classes are given by name and get their ids, from 1
            on, in the order of the names.
        listed: names that come first, in their order, and are classes even without a label.
    """

    def __init__(self, folder: Path, classes: Mapping[int, str] | None = None, listed: Sequence[str] = ()) -> None:
        self._pictures, self._classes, self._listed = Pictures(folder), classes, listed
        self._images: dict[str, dict[str, Any]] = {}  # by the names of their files
        self._given: dict[str, dict[str, Any]] = {}  # by the names that were asked for
        self._annotations: list[dict[str, Any]] = []

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def picture(self, name: str, size: Sequence[Any] | None = None, sized: bool = False) -> dict[str, Any]:
        """The row of an image, new or not, which a name of another machine may stand for.

        Args:
            name: path from the folder.
            size: width and height as the format says them; read from the file where there are none.
            sized: whether it is needed at once, since boxes are shares of it; the file's goes before the format's.
        """
        if (row := self._given.get(name)) is None:
            there, file = self._pictures.holds(name), name
            if not there and len(found := self._pictures.find(name)) == 1:
                there, file = True, found[0]
            row = self._given[name] = self._images.setdefault(file, {"id": len(self._images) + 1, "file_name": file})
            if sized and there and "width" not in row:
                size = size_of_file(os.path.join(self._pictures.root, file)) or size
            if size is not None:
                row["width"], row["height"] = size
        return row

    def add(self, image: Mapping[str, Any] | None, category: int | str | None, box: Sequence[float], place: str,
            crowd: int = 0) -> None:  # fmt: skip
        """Add a box.

        Args:
            image: a row of `picture`; None where the label's image is missing.
            category: its class, by id or by name as in `classes`; None where the label says none.
            box: x, y, width, height in pixels, not finite where the file says so.
            place: where the label stands.
            crowd: 1 for what counts as neither right nor wrong.
        """
        x, y, width, height = (round(value, _DECIMALS) for value in box)
        self._put(image, category, place, bbox=[x, y, width, height], area=width * height, iscrowd=crowd)

    def unread(self, image: Mapping[str, Any] | None, place: str, why: str) -> None:
        """Count a label that is no box."""
        self._put(image, None, place, **{UNREADABLE: why})

    def _put(self, image: Mapping[str, Any] | None, category: int | str | None, place: str, **values: Any) -> None:
        row = {"id": len(self._annotations) + 1, "image_id": None if image is None else image["id"]}
        self._annotations.append({**row, "category_id": category, PLACE: place, **values})

    def as_coco(self) -> dict[str, Any]:
        """COCO's JSON object of all that was added."""
        coco: dict[str, Any] = {"images": list(self._images.values()), "annotations": self._annotations}
        if self._classes is not None:
            coco["categories"] = [{"id": number, "name": name} for number, name in sorted(self._classes.items())]
            return coco
        names = {row["category_id"] for row in self._annotations if isinstance(row["category_id"], str)}
        coco["categories"] = [{"name": name} for name in names]
        coco[_FOUND] = list(self._listed)
        unite_classes([coco])
        return coco


def unite_classes(parts: Sequence[dict[str, Any]]) -> None:
    """Give parts whose classes are those of their labels the classes of all of them, so that ids are the same."""
    parts = [coco for coco in parts if coco.get(_FOUND) is not None]
    names = {category["name"] for coco in parts for category in coco["categories"]}
    listed = dict.fromkeys(name for coco in parts for name in coco[_FOUND])
    order = [*listed, *sorted(names - listed.keys(), key=natural)]
    numbers = {name: number for number, name in enumerate(order, start=1)}
    for coco in parts:
        before = {category["id"]: category["name"] for category in coco["categories"] if "id" in category}
        for row in coco["annotations"]:
            name = before.get(row["category_id"], row["category_id"])
            row["category_id"] = numbers.get(name, row["category_id"])
        coco["categories"] = [{"id": number, "name": name} for name, number in numbers.items()]
