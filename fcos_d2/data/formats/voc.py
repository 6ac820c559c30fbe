"""Pascal VOC: an XML file for each image, in Annotations/ with lists in ImageSets/Main, or beside the images.

Corners are whole pixels counted from 1, both within the box, as the challenge has them (development kit of
host.robots.ox.ac.uk/pascal/VOC, "Annotation"): x = xmin - 1, width = xmax - xmin + 1. `difficult` objects count as
neither right nor wrong there, so here they are crowd regions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import FcosError
from ..layout import PART_NAMES, Split
from ..meant import flag, number, shown
from ..texts import Element, lines_of, read_xml
from .labels import Labels, bounds, turned
from .listing import child, files_below, first_files, is_picture
from .pairs import Pairs, find_pairs, holds

__all__ = ["LOOKS_FOR", "find", "read", "read_from_zero"]

LOOKS_FOR = "Annotations/*.xml with JPEGImages/ and ImageSets/Main/train.txt, or *.xml beside the images"

# Elements that say where an object is, the first goes: VOC's own, roLabelImg's (radians), and Roboflow's.
_SHAPES = {
    "bndbox": ("xmin", "ymin", "xmax", "ymax"),
    "robndbox": ("cx", "cy", "w", "h", "angle"),
    "polygon": ("x1", "y1", "x2", "y2"),
}


def find(root: Path) -> dict[str, Split]:
    """The parts of the VOC data set in a folder, or in the only year of a VOCdevkit; empty where there is none."""
    root = _year(root)
    if lists := _image_sets(root):
        return {part: Split(path, root) for part, path in lists.items()}
    return find_pairs(root, ".xml", _is_voc)


def read(split: Split) -> dict:
    """Ground truth of one part as COCO's JSON object, with a row for every object; corners count from 1.

    Raises:
        FcosError: an XML file is missing, or is none.
    """
    return _read(split, first=1)


def read_from_zero(split: Split) -> dict:
    """The same for files of tools that write the edges of boxes, counted from 0: width = xmax - xmin."""
    return _read(split, first=0)


def _year(root: Path) -> Path:
    """The folder of a year where there is only one."""
    devkit = child(root, "vocdevkit") or root
    years = [path for path in devkit.iterdir() if path.is_dir() and path.name.lower().startswith("voc")]
    return years[0] if len(years) == 1 and child(years[0], "annotations") else root


def _image_sets(root: Path) -> dict[str, Path]:
    """The lists of a part's images; trainval counts as train where that is missing."""
    sets, labels = child(root, "imagesets"), child(root, "annotations")
    main = sets and (child(sets, "main") or sets)
    if main is None or labels is None or not holds(labels, ".xml", _is_voc):
        return {}
    files = {path.stem.lower(): path for path in first_files(main, ".txt", 1000)}
    names = {**PART_NAMES, "train": (*PART_NAMES["train"], "trainval", "default")}
    found = {part: next((files[name] for name in those if name in files), None) for part, those in names.items()}
    return {part: path for part, path in found.items() if path is not None}


def _is_voc(path: Path) -> bool:
    try:
        tree = read_xml(path)
    except FcosError:
        return False
    return tree.tag == "annotation" and any(tree.find(key) is not None for key in ("object", "size", "filename"))


def _read(split: Split, first: int) -> dict:
    root = split.images
    labels, pairs = Labels(root, listed=_classes(root)), Pairs(root)
    for path in _files(split):
        tree = read_xml(path)
        if tree.tag != "annotation":
            raise FcosError(
                f"{path} is not a file of Pascal VOC: it begins with <{shown(tree.tag)}>, not <annotation>."
            )
        place = os.path.relpath(path, root).replace(os.sep, "/")
        image = labels.picture(pairs.image_of(place) or _text(tree, "filename") or path.stem, _size(tree))
        for at, item in enumerate(tree.findall("object"), start=1):
            _add(labels, image, item, f"{place} object {at}", first)
    if split.annotations.is_dir():
        pairs.tell_unlabelled(split.annotations)
    return labels.as_coco()


def _classes(root: Path) -> list[str]:
    """The classes that CVAT lists, `name:color:parts:actions` a line; one of black is no class but what is around."""
    path = root / "labelmap.txt"
    lines = [line for line in lines_of(path) if not line.startswith("# ")] if path.is_file() else []
    return [line.rsplit(":", 3)[0] for line in lines if ":0,0,0:" not in line]


def _text(element: Element, key: str) -> str:
    return (element.findtext(key) or "").strip()


def _size(tree: Element) -> list[Any] | None:
    """Width and height as they are written; None where they are no size, so that the file's count."""
    size = tree.find("size")
    found = [number(_text(size, key)) if size is not None else None for key in ("width", "height")]
    return found if all((side or 0) > 0 for side in found) else None


def _add(labels: Labels, image: dict[str, Any], item: Element, place: str, first: int) -> None:
    box, why = _box(item, first)
    crowd = flag(_text(item, "difficult"))
    if box is None or crowd is None:
        why = why or f"difficult is {shown(_text(item, 'difficult'))}, neither 0 nor 1"
        labels.unread(image, place, why)
    else:
        labels.add(image, _text(item, "name") or None, box, place, crowd)


def _box(item: Element, first: int) -> tuple[list[float] | None, str]:
    """x, y, width and height of an object, in pixels from the corner of the image, or why there are none."""
    for key, names in _SHAPES.items():
        if (shape := item.find(key)) is None:
            continue
        values = [number(_text(shape, name)) for name in names]
        if key == "polygon":
            values = [number((point.text or "").strip()) for point in shape]
        if None in values or (key == "polygon" and (len(values) < 4 or len(values) % 2)):
            return None, f"its {key} has no numbers for {', '.join(names)}"
        numbers = [float(value) for value in values if value is not None]
        if key == "bndbox":
            x, y, x2, y2 = numbers
            return [x - first, y - first, x2 - x + first, y2 - y + first], ""
        if key == "robndbox":
            x, y, width, height, angle = numbers
            return turned(x, y, width, height, math.degrees(angle)), ""
        return bounds(numbers), ""
    return None, "it has no bndbox"


def _files(split: Split) -> Iterator[Path]:
    """The XML files of a part, by its list or all in a folder."""
    if split.annotations.is_dir():
        yield from (
            split.annotations / name for name in files_below(split.annotations) if name.lower().endswith(".xml")
        )
        return
    folder = child(split.images, "annotations")
    missing: list[Path] = []
    seen: set[Path] = set()
    for line in lines_of(split.annotations):
        paths = [(folder or split.images) / f"{stem}.xml" for stem in _stems(line)]
        path = next((path for path in paths if os.path.isfile(path)), paths[-1])  # a name may be too long
        if path in seen:  # listed twice, it has its labels once
            continue
        seen.add(path)
        if os.path.isfile(path):
            yield path
        else:
            missing.append(path)
    if missing:
        raise FcosError(
            f"{len(missing)} images of {split.annotations} have no XML file, the first: {shown(str(missing[0]))}; put "
            "them there, or take the images out of the list."
        )


def _stems(line: str) -> Iterator[str]:
    """What a line of a list may name: the whole line, else its first word, since a 1 or -1 may follow."""
    for words in (line, line.split()[0]):
        name = words.replace("\\", "/").rsplit("/", 1)[-1]
        yield name
        if is_picture(name) or name.lower().endswith(".xml"):
            yield os.path.splitext(name)[0]
