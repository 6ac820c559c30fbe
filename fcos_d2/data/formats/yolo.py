"""YOLO: a text file beside each image or in a tree of its own, a line for each object, numbers as shares of the image.

A line is `class x y width height` with the box's center, `class x1 y1 x2 y2 ...` with a polygon (four corners for
oriented boxes), or, where the data's `kpt_shape` says so, a box with key points. An image without a label file has no
objects. What folders and keys mean is Ultralytics' (docs.ultralytics.com/datasets/detect) and Darknet's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import FcosError
from ..layout import Split
from ..meant import number
from ..pictures import is_inside
from ..texts import lines_of, read_text
from .labels import Labels, bounds
from .listing import child, first_files, is_picture, part_folders, part_of, pictures_below
from .yolo_yaml import DESCRIPTIONS, described, description_in

__all__ = ["DESCRIPTIONS", "LOOKS_FOR", "find", "parts_of", "read"]

logger = logging.getLogger("fcos_d2")

LOOKS_FOR = "data.yaml, or text files with lines like '0 0.5 0.5 0.2 0.2' in labels/ or beside the images"

_IMAGE_FOLDERS = ("images", "jpegimages", "imgs")
_LABEL_FOLDERS = ("labels", "labels_yolo")


def find(root: Path) -> dict[str, Split]:
    """The parts of the YOLO data set in a folder; empty where there is none.

    Raises:
        FcosError: several files may describe the data.
    """
    if (path := description_in(root)) is not None:
        return parts_of(path, root)
    lists = {part: path for path in first_files(root, ".txt", 1000) if (part := part_of(path.stem))}
    if lists and child(root, *_LABEL_FOLDERS):
        return {part: Split(path, root) for part, path in sorted(lists.items()) if _lists_images(path)}
    images = child(root, *_IMAGE_FOLDERS)
    parts = part_folders(root) or (part_folders(images) if images else {})
    found = {part: path for part, path in parts.items() if _has_labels(root, path)}
    if not found and _has_labels(root, images or root):
        found = {"train": images or root}
    return {part: Split(path, root) for part, path in found.items()}


def parts_of(path: Path, root: Path) -> dict[str, Split]:
    """The parts that a file describes, whose folders are below the root; raises FcosError if it describes none."""
    parts = described(path).parts
    if not parts:
        raise FcosError(f"{path} describes no data set: it needs train and val, each a folder, a list or several.")
    return {part: Split(path, root, part) for part in parts}


def read(split: Split) -> dict:
    """Ground truth of one part as COCO's JSON object, in pixels, with a row for every line.

    Raises:
        FcosError: the description is wrong, or a folder, a list or a label file cannot be read.
    """
    root = split.images
    told = described(split.annotations) if split.part else None
    names = (told and told.names) or _listed_names(root)
    labels = Labels(root, names)
    reader = _Reader(root, labels, names, told.key_point_values if told else 0)
    for place in told.places(root, split.part) if told else [split.annotations]:
        reader.take(place)
    reader.finish(split.annotations)
    return labels.as_coco()


def _lists_images(path: Path) -> bool:
    lines = lines_of(path)[:20]
    return bool(lines) and all(is_picture(line) for line in lines)


def _has_labels(root: Path, images: Path) -> bool:
    """Whether there are lines of boxes for the pictures of a folder below the root."""
    beside = [root / place for place in _label_folders(root, os.path.relpath(images, root))]
    places = [images, child(images, *_LABEL_FOLDERS), child(images, *_IMAGE_FOLDERS), *beside]
    files = [file for place in places if place is not None for file in first_files(place, ".txt", 50)]
    return any(_looks_like_labels(file) for file in files)


def _looks_like_labels(path: Path) -> bool:
    """Whether the first line of a text file has a class and at least four shares."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            words = next((line.split() for line in (file.readline(10_000) for _ in range(3)) if line.strip()), [])
    except OSError:
        return False
    values = [number(word) for word in words]
    whole = bool(values) and values[0] is not None and float(values[0]).is_integer()
    return whole and len(values) >= 5 and all(value is not None and abs(value) <= 2 for value in values[1:5])


def _label_folders(root: Path, folder: str) -> Iterator[str]:
    """The folder of label files for a folder of images, by paths from the root: labels/ for the last images/."""
    words = folder.split(os.sep)
    for at in reversed(range(len(words))):
        if words[at].lower() in _IMAGE_FOLDERS:
            if (labels := child(root.joinpath(*words[:at]), *_LABEL_FOLDERS)) is not None:
                yield os.path.join(*words[:at], labels.name, *words[at + 1 :])
            return


def _listed_names(root: Path) -> dict[int, str] | None:
    """Names of classes, one a line, in a file beside the data."""
    for name in ("classes.txt", "obj.names", "classes.names", "_darknet.labels", "labels/classes.txt", "labels.txt"):
        if (root / name).is_file() and (lines := lines_of(root / name)):
            return dict(enumerate(lines))
    return None


class _Reader:
    """Reads label files into `Labels`."""

    def __init__(self, root: Path, labels: Labels, names: dict[int, str] | None, key_points: int) -> None:
        self._root, self._labels, self._names, self._key_points = root, labels, names, key_points
        self._numbers = {name: number for number, name in (names or {}).items()}
        self._folders: dict[str, list[str]] = {}  # of images -> where their label files may be, by paths from the root
        self._walked: set[str] = set()
        self._used: set[str] = set()
        self._images = 0
        self._repeated: list[str] = []
        self._expected = ""

    def take(self, place: Path) -> None:
        """Read the labels of a folder of images, of a list of images, or of one image."""
        if place.is_dir():
            inside = os.path.relpath(place, self._root)
            for name in pictures_below(place):
                self._read(os.path.normpath(os.path.join(inside, name)), walked=True)
        elif is_picture(place.name):
            self._read(os.path.relpath(place, self._root))
        else:
            above = os.path.relpath(place.parent, self._root)
            for line in lines_of(place):
                near = os.path.normpath(os.path.join(above, line))
                self._read(near if os.path.isfile(self._root / near) and not near.startswith("..") else line)

    def finish(self, source: Path) -> None:
        """Count the label files whose images are missing, and say where labels would be if there are none."""
        for folder in sorted(self._walked):
            for file in first_files(self._root / folder, ".txt", 1 << 30):
                name = os.path.relpath(file, self._root)
                if name not in self._used and _looks_like_labels(file):
                    for at, _ in enumerate(lines_of(file), start=1):
                        self._labels.unread(None, f"{name}:{at}", "its image is missing")
        if self._images and not self._used:
            logger.warning(
                "%s: none of %d images has a label file, so all count as empty; the first would be %s.",
                source, self._images, self._expected,
            )  # fmt: skip
        if self._repeated:
            logger.warning(
                "%s lists %d images twice, which count once; the first: %s.",
                source, len(self._repeated), self._repeated[0],
            )  # fmt: skip

    def _read(self, name: str, walked: bool = False) -> None:
        image = self._labels.picture(name, sized=True)
        if len(self._labels) == self._images:
            self._repeated.append(name)
            return
        self._images += 1
        if not is_inside(image["file_name"]):
            return  # it is missing
        folder, file = os.path.split(image["file_name"])
        if folder not in self._folders:
            self._folders[folder] = [*_label_folders(self._root, folder), folder]
            if walked:
                self._walked |= set(self._folders[folder])
        stem = os.path.splitext(file)[0] + ".txt"
        places = [os.path.join(place, stem) for place in self._folders[folder]]
        self._expected = self._expected or places[0]
        if (
            there := next((path for path in places if os.path.isfile(os.path.join(self._root, path))), None)
        ) is not None:
            self._used.add(there)
            for at, line in enumerate(read_text(self._root / there).splitlines(), start=1):
                if words := line.split():
                    self._line(image, words, f"{there}:{at}")

    def _line(self, image: dict[str, Any], words: list[str], place: str) -> None:
        values = [number(word) for word in words[1:]]
        if len(values) < 4:
            self._labels.unread(image, place, f"{len(words)} numbers instead of 5 or more")
        elif None in values:
            self._labels.unread(image, place, f"{words[1 + values.index(None)]} is no number")
        elif "width" not in image:
            self._labels.unread(image, place, "the size of its image is not known")
        else:
            box = self._box([float(value) for value in values if value is not None])
            sides = (image["width"], image["height"])
            self._labels.add(image, self._class(words[0]), [a * b for a, b in zip(box, sides * 2)], place)

    def _box(self, values: list[float]) -> list[float]:
        """x, y, width and height in shares of the image."""
        if len(values) < 6 or len(values) % 2 or len(values) == 4 + self._key_points:  # a box, and perhaps a score
            x, y, width, height = values[:4]
            return [x - width / 2, y - height / 2, width, height]
        return bounds(values)

    def _class(self, word: str) -> int | str | None:
        """The id of a class, which may be written as 3.0 or by name; its name where no names are listed."""
        value = number(word)
        if value is None or not float(value).is_integer():
            return self._numbers.get(word, word if self._names is None and value is None else None)
        return int(value) if self._names is not None else f"class_{int(value)}"
