"""Pascal VOC: an XML file for each image, in Annotations/ with lists in ImageSets/Main, or beside the images.

Corners are whole pixels counted from 1, both within the box, as the challenge has them (development kit of
host.robots.ox.ac.uk/pascal/VOC, "Annotation"): x = xmin - 1, width = xmax - xmin + 1. `difficult` objects count as
neither right nor wrong there, so here they are crowd regions.
"""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import FcosError
from ..layout import PART_NAMES, Split
from ..meant import flag, number, shown
from ..texts import Element, lines_of, read_xml
from .folders import child, files_below, first_files, is_picture, part_folders, pictures_below
from .labels import Labels, bounds, turned

__all__ = ["LOOKS_FOR", "find", "read", "read_from_zero"]

logger = logging.getLogger("fcos_d2")

LOOKS_FOR = "Annotations/*.xml with JPEGImages/ and ImageSets/Main/train.txt, or *.xml beside the images"

_IMAGE_FOLDERS = ("jpegimages", "images", "imgs", "image")
_LABEL_FOLDERS = ("annotations", "annotation", "xml", "xmls", "labels")
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
    labels, images = child(root, *_LABEL_FOLDERS), child(root, *_IMAGE_FOLDERS)
    for folder in (root, labels, images):
        found = {part: path for part, path in part_folders(folder or root).items() if _holds_labels(path)}
        if found:
            return {part: Split(path, root) for part, path in found.items()}
    here = next((folder for folder in (labels, images, root) if folder and _holds_labels(folder)), None)
    return {"train": Split(here, root)} if here else {}


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
    if main is None or labels is None or not _holds_labels(labels):
        return {}
    files = {path.stem.lower(): path for path in first_files(main, ".txt", 1000)}
    names = {**PART_NAMES, "train": (*PART_NAMES["train"], "trainval", "default")}
    found = {part: next((files[name] for name in those if name in files), None) for part, those in names.items()}
    return {part: path for part, path in found.items() if path is not None}


def _holds_labels(folder: Path) -> bool:
    """Whether a folder, or one for labels in it, has an XML file as VOC's."""
    places = [folder, child(folder, *_LABEL_FOLDERS)]
    files = [file for place in places if place is not None for file in first_files(place, ".xml", 3)]
    for file in files:
        try:
            tree = read_xml(file)
        except FcosError:
            continue
        if tree.tag == "annotation" and any(tree.find(key) is not None for key in ("object", "size", "filename")):
            return True
    return False


def _read(split: Split, first: int) -> dict:
    root = split.images
    labels, images = Labels(root), _Images(root)
    for path in _files(split):
        tree = read_xml(path)
        if tree.tag != "annotation":
            raise FcosError(
                f"{path} is not a file of Pascal VOC: it begins with <{shown(tree.tag)}>, not <annotation>."
            )
        place = os.path.relpath(path, root)
        image = labels.picture(images.of(place) or _text(tree, "filename") or path.stem, _size(tree))
        for at, item in enumerate(tree.findall("object"), start=1):
            _add(labels, image, item, f"{place} object {at}", first)
    if split.annotations.is_dir() and (left := images.unused()):
        logger.warning(
            "%s: %d images have no XML file and are left out, the first: %s.", split.annotations, len(left), left[0]
        )
    return labels.as_coco()


class _Images:
    """The images below a folder, by the XML files that are beside them or in a folder like theirs."""

    def __init__(self, root: Path) -> None:
        self._all = pictures_below(root)
        self._like: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._named: dict[str, list[str]] = defaultdict(list)
        self._used: set[str] = set()
        self._places: set[str] = set()
        for name in self._all:
            folder, stem = _place(name)
            self._like[folder, stem].append(name)
            self._named[stem].append(name)

    def of(self, file: str) -> str | None:
        """The image of an XML file, which has its name; None where that is not certain."""
        folder, stem = _place(file)
        self._places.add(folder)
        beside = [name for name in self._named[stem] if os.path.dirname(name) == os.path.dirname(file)]
        found = next((names for names in (beside, self._like[folder, stem], self._named[stem]) if names), [])
        if len(found) != 1:
            return None
        self._used.add(found[0])
        return found[0]

    def unused(self) -> list[str]:
        """The images in folders like those of the XML files that none of these is for."""
        return [name for name in self._all if name not in self._used and _place(name)[0] in self._places]


def _place(name: str) -> tuple[str, str]:
    """The folder of a file without the words that say whether it has images or labels, and the file's name."""
    folder, file = os.path.split(name)
    words = [word for word in folder.lower().split(os.sep) if word not in (*_IMAGE_FOLDERS, *_LABEL_FOLDERS)]
    return "/".join(words), os.path.splitext(file)[0]


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
    missing = []
    for line in lines_of(split.annotations):
        name = line.split()[0].replace("\\", "/").rsplit("/", 1)[-1]
        stem = os.path.splitext(name)[0] if is_picture(name) or name.lower().endswith(".xml") else name
        path = (folder or split.images) / f"{stem}.xml"
        if path.is_file():
            yield path
        else:
            missing.append(path)
    if missing:
        raise FcosError(
            f"{len(missing)} images of {split.annotations} have no XML file, the first: {missing[0]}; put them "
            "there, or take the images out of the list."
        )
