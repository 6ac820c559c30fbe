"""CVAT for images 1.1, an XML file for all images; and the tracks of CVAT for video, whose frames lie as images.

Coordinates are pixels from the corner of the image, a box is turned clockwise about its center, and a task's label is a
class whether it occurs or not (docs.cvat.ai, "XML annotation format").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import FcosError
from ..layout import Split
from ..meant import number, shown
from ..texts import Element, read_xml
from .labels import Labels, bounds, turned
from .listing import child, first_files, part_folders, part_of, pictures_below

__all__ = ["LOOKS_FOR", "find", "read"]

LOOKS_FOR = "annotations.xml with <image> or <track> elements"

_POINTS = ("polygon", "polyline")
_NO_BOX = {"points": "points have no size"}
_SHAPES = {"box", "ellipse", "cuboid", "mask", "skeleton", *_POINTS, *_NO_BOX}
_SUBSET = re.compile(rb"<image\b[^>]*\bsubset=[\"']([^\"']*)[\"']")


def find(root: Path) -> dict[str, Split]:
    """The parts of the CVAT export in a folder, by the subsets of its images or the names of files and folders.

    Raises:
        FcosError: several files may be one part.
    """
    folders = {"": root, "train": child(root, "annotations"), **part_folders(root)}
    files = [(part, path) for part, folder in folders.items() if folder for path in first_files(folder, ".xml", 50)]
    files = [(part_of(path.stem) or part, path) for part, path in files if _is_cvat(path)]
    found: dict[str, Split] = {}
    for part, path in files:
        parts = [part] if part else sorted({part_of(subset) or "train" for subset in _subsets(path)}) or ["train"]
        for one in parts:
            if one in found:
                names = f"{found[one].annotations.name} and {path.name}"
                raise FcosError(f"Of {names} in {root}, either may be the {one} part: name them train.xml and val.xml.")
            found[one] = Split(path, root, one if len(parts) > 1 else "")
    return found


def read(split: Split) -> dict:
    """Ground truth of one part as COCO's JSON object, with a row for every shape; of a track, for every frame in it.

    Raises:
        FcosError: the file is not XML, or frames of a track do not lie as images.
    """
    tree = read_xml(split.annotations)
    if tree.tag != "annotations":
        raise FcosError(f"{split.annotations} is not a file of CVAT: it begins with <{shown(tree.tag)}>.")
    names = [(label.findtext("name") or "").strip() for labels in tree.findall("meta//labels") for label in labels]
    known = dict(enumerate(dict.fromkeys(filter(None, names)), start=1)) or None
    labels = Labels(split.images, known)
    numbers = {name: at for at, name in (known or {}).items()}

    def class_of(item: Element) -> int | str | None:
        label = item.get("label") or None
        return numbers.get(label) if known and label else label

    for item in tree.findall("image"):
        if split.part and (part_of(item.get("subset") or "") or "train") != split.part:
            continue
        name, size = item.get("name") or "", [number(item.get(key) or 0) for key in ("width", "height")]
        if not name:
            raise FcosError(f"{split.annotations} has an image without a name: id {shown(item.get('id'))}.")
        image = labels.picture(name, size if all((side or 0) > 0 for side in size) else None)
        for at, shape in enumerate((one for one in item if one.tag in _SHAPES), start=1):
            _add(labels, image, class_of(shape), shape, f"{name} shape {at}")
    frames = _frames(split) if tree.find("track") is not None else {}
    for track in tree.findall("track"):
        for shape in (one for one in track if one.tag in _SHAPES and one.get("outside") != "1"):
            frame, place = shape.get("frame") or "", f"track {track.get('id')} frame {shape.get('frame')}"
            file = frames.get(int(frame)) if re.fullmatch(r"\d{1,9}", frame) else None
            if file is None:
                labels.unread(None, place, "its frame does not lie as an image")
            else:
                _add(labels, labels.picture(file), class_of(track), shape, place)
    return labels.as_coco()


def _is_cvat(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return b"<annotations" in head and (b"<image " in head or b"<track " in head or b"<meta" in head)


def _subsets(path: Path) -> Iterator[str]:
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield from (found.decode("utf-8", "replace") for found in _SUBSET.findall(tail + chunk))
            tail = chunk[-2000:]


def _frames(split: Split) -> dict[int, str]:
    """Images by the number that their names end with, as in frame_000012.png."""
    found: dict[int, str] = {}
    for name in pictures_below(split.images):
        if digits := re.search(r"(\d{1,9})\.\w+$", name):
            found.setdefault(int(digits[1]), name)
    return found


def _add(labels: Labels, image: dict[str, Any], category: int | str | None, shape: Element, place: str) -> None:
    box = _box(shape)
    if isinstance(box, str):
        labels.unread(image, place, box)
    else:
        labels.add(image, category, box, place)


def _box(shape: Element) -> list[float] | str:
    """x, y, width and height in pixels, or why there is no box."""
    if shape.tag in _NO_BOX:
        return _NO_BOX[shape.tag]
    if shape.tag in _POINTS or shape.tag == "skeleton":
        texts = [shape.get("points") or ""] if shape.tag in _POINTS else [one.get("points") or "" for one in shape]
        words = [word for text in texts for word in re.split("[,;]", text)]
    else:
        words = [shape.get(key) or "" for key in _KEYS[shape.tag]]
    found = [number(word.strip() or "no") for word in words]
    degrees = number(shape.get("rotation") or 0)
    if None in found or degrees is None or len(found) % 2 or len(found) < 4:
        return f"its numbers are {shown(' '.join(words))}"
    values = [float(one) for one in found if one is not None]
    if shape.tag == "mask":
        return values
    if shape.tag == "ellipse":
        x, y, a, b = values
        values = [x - a, y - b, x + a, y + b]
    x, y, width, height = bounds(values) if shape.tag != "box" else _edges(values)
    return [x, y, width, height] if not degrees else turned(x + width / 2, y + height / 2, width, height, degrees)


_KEYS = {
    "box": ("xtl", "ytl", "xbr", "ybr"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "mask": ("left", "top", "width", "height"),
    "cuboid": tuple(f"{axis}{side}{at}" for side in ("tl", "bl", "tr", "br") for at in (1, 2) for axis in "xy"),
}


def _edges(corners: list[float]) -> list[float]:
    """x, y, width and height of two corners, whose order is left to `clean`."""
    x, y, x2, y2 = corners
    return [x, y, x2 - x, y2 - y]
