"""labelme: a JSON file beside each image, with shapes of points in pixels (github.com/wkentaro/labelme).

Shapes of one label and one group are one object, as labelme's own converters have it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import FcosError
from ..layout import Split
from ..meant import number, shown
from ..texts import read_json
from .json_kinds import kind_of
from .labels import Labels, bounds
from .listing import files_below
from .pairs import Pairs, find_pairs

__all__ = ["LOOKS_FOR", "find", "read"]

LOOKS_FOR = "a JSON file with 'shapes' beside each image"


def find(root: Path) -> dict[str, Split]:
    """The parts of the labelme data set in a folder; empty where there is none."""
    return find_pairs(root, ".json", lambda path: kind_of(path) == "labelme")


def read(split: Split) -> dict:
    """Ground truth of one part as COCO's JSON object, with a row for every shape or group of them.

    Raises:
        FcosError: a file is not JSON, or not labelme's.
    """
    root = split.images
    labels, pairs = Labels(root), Pairs(root)
    for name in files_below(split.annotations):
        path = split.annotations / name
        if path.suffix.lower() != ".json" or kind_of(path) not in ("labelme", "unknown"):
            continue
        said = read_json(path)
        shapes = said.get("shapes") if isinstance(said, dict) else None
        if not isinstance(shapes, list):
            raise FcosError(f"{path} is not a file of labelme: it has no list 'shapes'.")
        place = os.path.relpath(path, root).replace(os.sep, "/")
        named = said.get("imagePath")
        image = labels.picture(pairs.image_of(place) or (named if isinstance(named, str) and named else path.stem))
        for at, label, box in _objects(shapes):
            if isinstance(box, str):
                labels.unread(image, f"{place} shape {at}", box)
            else:
                labels.add(image, label, box, f"{place} shape {at}")
    pairs.tell_unlabelled(split.annotations)
    return labels.as_coco()


def _objects(shapes: list[Any]) -> Iterator[tuple[int, str | None, list[float] | str]]:
    """Number of the first shape, label, and box or why there is none, of each object."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for at, shape in enumerate(shapes, start=1):
        label = shape.get("label") if isinstance(shape, dict) else None
        label = str(label) if isinstance(label, (str, int, float)) and label != "" else None
        box = _box(shape)
        group = shape.get("group_id") if isinstance(shape, dict) else None
        if group is None or label is None or isinstance(box, str):
            yield at, label, box
        else:
            groups.setdefault((label, repr(group)), [at]).append(box)
    for (label, _), (at, *boxes) in groups.items():
        yield at, label, bounds(value for x, y, w, h in boxes for value in (x, y, x + w, y + h))


def _box(shape: Any) -> list[float] | str:
    """x, y, width and height in pixels, or why there is no box."""
    if not isinstance(shape, dict):
        return f"it is {shown(shape)}, no shape"
    points = shape.get("points")
    pairs = points if isinstance(points, list) and all(isinstance(p, list) and len(p) == 2 for p in points) else []
    values = [number(value) for pair in pairs for value in pair]
    kind = shape.get("shape_type") or "polygon"
    if not values or None in values:
        return f"its points are {shown(points)}"
    numbers = [float(value) for value in values if value is not None]
    if kind == "circle" and len(numbers) == 4:
        x, y = numbers[:2]
        radius = math.hypot(numbers[2] - x, numbers[3] - y)
        return [x - radius, y - radius, 2 * radius, 2 * radius]
    return "a point has no size" if len(numbers) < 4 or kind in ("point", "points") else bounds(numbers)
