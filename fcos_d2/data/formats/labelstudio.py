"""Label Studio's JSON export: tasks with regions in percent of their image, or its short form JSON-MIN.

A region is turned about its corner (x, y), clockwise (labelstud.io/guide/export, "Units of image annotations").
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import FcosError
from ..layout import Split
from ..meant import number, shown
from ..pictures import Pictures
from ..texts import read_json
from .json_kinds import kind_of
from .labels import Labels, bounds
from .listing import first_files, part_folders, part_of

__all__ = ["LOOKS_FOR", "find", "read"]

logger = logging.getLogger("fcos_d2")

LOOKS_FOR = "one JSON export with 'annotations' and 'data' of each task"

# Types of regions -> the numbers that say where they are; regions of other types are no objects.
_BOXES = ("rectanglelabels", "rectangle")
_POLYGONS = ("polygonlabels", "polygon")
_ELLIPSES = ("ellipselabels", "ellipse")
_NO_BOX = {
    "keypointlabels": "a key point has no size",
    "keypoint": "a key point has no size",
    "brushlabels": "a brush stroke is no box",
    "brush": "a brush stroke is no box",
}
_SHAPES = {*_BOXES, *_POLYGONS, *_ELLIPSES, *_NO_BOX}


def find(root: Path) -> dict[str, Split]:
    """The parts of the Label Studio export in a folder; one file alone is the train part.

    Raises:
        FcosError: several files may be one part.
    """
    files = [(part_of(path.stem), path) for path in first_files(root, ".json", 50)]
    files += [(part, path) for part, folder in part_folders(root).items() for path in first_files(folder, ".json", 5)]
    found: dict[str, Path] = {}
    for part, path in [(part or "train", path) for part, path in files if kind_of(path) == "labelstudio"]:
        if part in found:
            raise FcosError(
                f"Of {found[part].name} and {path.name} in {root}, either may be the {part} part: name the files "
                "train.json and val.json, or leave one in the folder."
            )
        found[part] = path
    return {part: Split(path, root) for part, path in found.items()}


def read(split: Split) -> dict:
    """Ground truth of one part as COCO's JSON object, with a row for every region that is a shape.

    Raises:
        FcosError: the file is not JSON, not an export, or a task names no image.
    """
    tasks = read_json(split.annotations)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise FcosError(f"{split.annotations} is not Label Studio's JSON export: it is no list of tasks.")
    labels, pictures, empty = Labels(split.images), Pictures(split.images), 0
    for at, task in enumerate(tasks, start=1):
        name, place = _image(task), f"task {shown(task.get('id', at))}"
        drafts = list(_drafts(task))
        if name is None:
            raise FcosError(f"{split.annotations} has a task ({place}) without an image: {shown(task)}.")
        if not drafts:
            empty += 1
            continue
        image = labels.picture(_on_disk(pictures, name), _size_said(drafts), sized=True)
        for regions in drafts[:-1]:
            for _ in _shapes(regions):
                labels.unread(image, place, "an older annotation of the task, of which the last one counts")
        for number_, region in enumerate(_shapes(drafts[-1]), start=1):
            _add(labels, image, region, drafts[-1], f"{place} region {number_}")
    if empty:
        logger.warning("%s: %d of %d tasks are not annotated and are left out.", split.annotations, empty, len(tasks))
    return labels.as_coco()


def _image(task: Mapping[str, Any]) -> str | None:
    """The path or address of a task's image."""
    inner = task.get("data")
    data = inner if isinstance(inner, dict) else task
    usual = [data.get(key) for key in ("image", "img", "photo", "url", "ocr")]
    words = [value for value in usual if isinstance(value, str) and value]
    words += [value for value in data.values() if isinstance(value, str) and re.search(r"\.\w{3,4}(\?|$)", value)]
    return words[0] if words else None


def _on_disk(pictures: Pictures, name: str) -> str:
    """The name of an image, without the eight signs that an upload puts before it where only that is a file."""
    folder, slash, file = name.rpartition("/")
    shorter = re.sub(r"^[0-9a-f]{8}-", "", file)
    return name if shorter == file or pictures.holds(name) or pictures.find(name) else folder + slash + shorter


def _drafts(task: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The regions of each annotation that was not cancelled; the one that counts is the last."""
    for key in ("annotations", "completions"):
        listed = task.get(key)
        there = listed if isinstance(listed, list) else []
        found = [one for one in there if isinstance(one, dict) and not one.get("was_cancelled")]
        found.sort(key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at") or "")))
        yield from (one["result"] for one in found if isinstance(one.get("result"), list))
        if found:
            return
    if "data" not in task:  # JSON-MIN has the regions in the task, under the name of the control
        lists = [value for value in task.values() if isinstance(value, list)]
        regions = [one for value in lists for one in value if isinstance(one, dict) and "original_width" in one]
        yield [{"type": _type_of(one), "value": one, **one} for one in regions]


def _type_of(region: Mapping[str, Any]) -> str:
    return next((kind for kind in (*_BOXES, *_POLYGONS, *_ELLIPSES) if kind in region), "rectangle")


def _shapes(regions: list[Any]) -> list[dict[str, Any]]:
    return [one for one in regions if isinstance(one, dict) and str(one.get("type")) in _SHAPES]


def _size_said(drafts: list[list[Any]]) -> list[Any] | None:
    """Width and height of the image as a region says them."""
    for region in (one for regions in drafts for one in _shapes(regions)):
        sides = [number(region.get(key)) for key in ("original_width", "original_height")]
        if all((side or 0) > 0 for side in sides):
            return sides
    return None


def _add(labels: Labels, image: dict[str, Any], region: dict[str, Any], regions: list[Any], place: str) -> None:
    box = _box(region, image)
    if isinstance(box, str):
        labels.unread(image, place, box)
    else:
        labels.add(image, _label(region, regions), box, place)


def _label(region: Mapping[str, Any], regions: list[Any]) -> str | None:
    """The class of a region; those of plain shapes stand in a region of their own with the same id."""
    same = [one for one in regions if isinstance(one, dict) and one.get("id") and one.get("id") == region.get("id")]
    for one in (region, *same):
        value = one.get("value")
        for key in (f"{one.get('type')}", "labels", "rectanglelabels"):
            names = value.get(key) if isinstance(value, dict) else None
            if isinstance(names, list) and names and isinstance(names[0], str) and names[0]:
                return names[0]
    return None


def _box(region: Mapping[str, Any], image: Mapping[str, Any]) -> list[float] | str:
    """x, y, width and height in pixels, or why there is no box."""
    kind, value = region["type"], region.get("value")
    if kind in _NO_BOX:
        return _NO_BOX[kind]
    if not isinstance(value, dict):
        return f"its value is {shown(value)}"
    if number(region.get("image_rotation") or 0) != 0:
        return f"it is drawn on the image turned by {shown(region['image_rotation'])} degrees"
    if not all(isinstance(image.get(key), (int, float)) for key in ("width", "height")):
        return "the size of its image is not known"
    points = _points(kind, value, image["width"] / 100, image["height"] / 100)
    return bounds(points) if points else f"it has no numbers: {shown(value)}"


def _points(kind: str, value: Mapping[str, Any], across: float, down: float) -> list[float]:
    """Corners in pixels, as x1, y1, x2, y2, ...; empty where there are no numbers."""
    if kind in _POLYGONS:
        pairs = value.get("points")
        sound = isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
        found = [number(one) for pair in pairs for one in pair] if sound and isinstance(pairs, list) else []
        numbers = [float(one) for one in found if one is not None]
        return (
            [one * (down if at % 2 else across) for at, one in enumerate(numbers)] if len(numbers) == len(found) else []
        )
    keys = ("x", "y", "radiusX", "radiusY") if kind in _ELLIPSES else ("x", "y", "width", "height")
    found = [number(value.get(key)) for key in keys] + [number(value.get("rotation") or 0)]
    if None in found:
        return []
    x, y, a, b, degrees = (float(one) for one in found if one is not None)
    x, y, a, b = x * across, y * down, a * across, b * down
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if kind in _ELLIPSES:
        wide, high = math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos)
        return [x - wide, y - high, x + wide, y + high]
    return [
        part
        for u, v in ((0.0, 0.0), (a, 0.0), (a, b), (0.0, b))
        for part in (x + u * cos - v * sin, y + u * sin + v * cos)
    ]
