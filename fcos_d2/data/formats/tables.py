"""CSV with a box a line: Open Images', TensorFlow's object detection tutorials', and plain ones, with a header or not.

Open Images writes shares of the image (storage.googleapis.com/openimages/web/download.html), TensorFlow's tutorials
edges in pixels from 0. A plain table has either; it has shares where no number of the whole file is above 1.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import FcosError
from ..layout import PART_NAMES, Split
from ..meant import flag, number, shown
from ..pictures import Pictures
from ..places import entries, image_root, part_of_words
from ..texts import read_text
from .labels import Labels
from .listing import child, first_files, is_picture, part_folders, pictures_below

__all__ = ["LOOKS_FOR", "find", "read"]

logger = logging.getLogger("fcos_d2")

LOOKS_FOR = "a CSV with a box a line, such as filename,width,height,class,xmin,ymin,xmax,ymax"

# What a column holds -> its names without signs, in lower case; the first goes.
_COLUMNS = {
    "image": (
        "filename",
        "imageid",
        "image",
        "imagepath",
        "filepath",
        "file",
        "path",
        "img",
        "imagename",
        "imgpath",
        "id",
    ),
    "class": ("class", "labelname", "label", "classname", "name", "category", "categoryname", "object", "classid"),
    "x1": ("xmin", "x1", "left", "bboxxmin", "bboxx1", "minx", "xtl"),
    "y1": ("ymin", "y1", "top", "bboxymin", "bboxy1", "miny", "ytl"),
    "x2": ("xmax", "x2", "right", "bboxxmax", "bboxx2", "maxx", "xbr"),
    "y2": ("ymax", "y2", "bottom", "bboxymax", "bboxy2", "maxy", "ybr"),
    "x": ("x", "bboxx", "boxx"),
    "y": ("y", "bboxy", "boxy"),
    "cx": ("xcenter", "centerx", "cx", "xc"),
    "cy": ("ycenter", "centery", "cy", "yc"),
    "w": ("w", "bboxwidth", "boxwidth", "bboxw", "boxw"),
    "h": ("h", "bboxheight", "boxheight", "bboxh", "boxh"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "bbox": ("bbox", "box", "boundingbox"),
    "crowd": ("isgroupof", "iscrowd", "difficult"),
}
# Columns that say where a box is, and x, y, width and height of their numbers.
_BOXES: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("x1", "y1", "x2", "y2"), lambda a, b, c, d: [a, b, c - a, d - b]),
    (("x", "y", "w", "h"), lambda a, b, c, d: [a, b, c, d]),
    (("cx", "cy", "w", "h"), lambda a, b, c, d: [a - c / 2, b - d / 2, c, d]),
    (("cx", "cy", "width", "height"), lambda a, b, c, d: [a - c / 2, b - d / 2, c, d]),
    (("x", "y", "width", "height"), lambda a, b, c, d: [a, b, c, d]),
    (("bbox",), lambda a, b, c, d: [a, b, c, d]),
)
_PLAIN = ("image", "x1", "y1", "x2", "y2", "class")  # columns of a table without a header, as Keras' RetinaNet has it


@dataclass(frozen=True)
class _Table:
    """How to read a file."""

    separator: str
    columns: dict[str, int]  # what -> number of the column
    has_header: bool

    @property
    def box(self) -> tuple[list[int], Any]:
        """Columns of the box, and what makes x, y, width and height of them."""
        names, make = next((names, make) for names, make in _BOXES if all(name in self.columns for name in names))
        return [self.columns[name] for name in names], make

    @property
    def is_sized(self) -> bool:
        """Whether width and height are those of the image."""
        return {"width", "height"} <= self.columns.keys() and not {"width", "height"} & set(self._box_names)

    @property
    def _box_names(self) -> tuple[str, ...]:
        return next(names for names, _ in _BOXES if all(name in self.columns for name in names))


def find(root: Path) -> dict[str, Split]:
    """The parts of a data set with tables of boxes in a folder; empty where there is none.

    Raises:
        FcosError: several files may be one part.
    """
    folders = {"": root, " ": child(root, "annotations", "labels", "csv"), **part_folders(root)}
    files = [
        (part.strip(), path) for part, folder in folders.items() if folder for path in first_files(folder, ".csv", 50)
    ]
    found: dict[str, Path] = {}
    for part, path in files:
        if _head(path) is None:
            continue
        part = part_of_words(path.stem) or part or "train"
        if part in found:
            names = f"{found[part].relative_to(root)} and {path.relative_to(root)}"
            raise FcosError(f"Of {names} in {root}, either may be the {part} part: name them train.csv and val.csv.")
        found[part] = path
    return {part: Split(path, _images(root, part, path)) for part, path in found.items()}


def read(split: Split) -> dict:
    """Ground truth of one part as COCO's JSON object, with a row for every line that has a box.

    Raises:
        FcosError: the file is no such table.
    """
    table = _head(split.annotations)
    if table is None:
        raise FcosError(f"{split.annotations} is no table of boxes; looked for {LOOKS_FOR}.")
    rows = list(_rows(split.annotations, table))
    columns, make = table.box
    numbers = [_numbers(row, columns) for _, row in rows]
    shares = _are_shares(numbers)
    above = os.path.commonpath((split.annotations.parent.resolve(), split.images.resolve()))
    labels, names = Labels(split.images), _display_names(split.annotations.parent, Path(above))
    suffixes = _Suffixes(split.images)
    for (line, row), values in zip(rows, numbers):
        name, place = _cell(row, table, "image"), f"line {line}"
        if not name:
            labels.unread(None, place, "it names no image")
            continue
        sides = [number(_cell(row, table, key) or 0) for key in ("width", "height")] if table.is_sized else [0]
        image = labels.picture(
            suffixes.full(name), sides if all((side or 0) > 0 for side in sides) else None, sized=shares
        )
        category = _cell(row, table, "class") if "class" in table.columns else "object"
        if values == []:  # an image without objects
            continue
        crowd = flag(_cell(row, table, "crowd"))
        if values is None or None in values or crowd is None:
            labels.unread(
                image, place, f"its numbers are {shown(' '.join(row[at] for at in columns if at < len(row)))}"
            )
        elif shares and "width" not in image:
            labels.unread(image, place, "the size of its image is not known")
        else:
            box = make(*values)
            if shares:
                box = [value * side for value, side in zip(box, (image["width"], image["height"]) * 2)]
            labels.add(image, names.get(category, category) or None, box, place, crowd)
    return labels.as_coco()


def _head(path: Path) -> _Table | None:
    """What the first lines of a file say of it; None where it has no boxes."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 14)
        text = read_text(path) if head[:2] in (b"\xff\xfe", b"\xfe\xff") else head.decode("utf-8-sig", "replace")
        first = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(",;\t|", key=first.count)
        cells = next(csv.reader([first], delimiter=separator), [])
    except (OSError, csv.Error, FcosError):
        return None
    named = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in cells]
    columns = {key: named.index(name) for key, names in _COLUMNS.items() for name in reversed(names) if name in named}
    if "image" in columns and any(all(name in columns for name in names) for names, _ in _BOXES):
        return _Table(separator, columns, True)
    plain = (
        len(cells) >= 6
        and is_picture(cells[0].strip())
        and all(number(cell.strip()) is not None for cell in cells[1:5])
    )
    return _Table(separator, {key: at for at, key in enumerate(_PLAIN)}, False) if plain else None


def _rows(path: Path, table: _Table) -> Iterator[tuple[int, list[str]]]:
    """Number of the line and cells of each row that is not blank."""
    rows = csv.reader(io.StringIO(read_text(path).lstrip("\ufeff"), newline=""), delimiter=table.separator)
    try:
        skipped = not table.has_header
        for row in rows:
            if any(cell.strip() for cell in row):
                if skipped:
                    yield rows.line_num, row
                skipped = True
    except csv.Error as error:
        raise FcosError(f"{path} cannot be read as CSV at line {rows.line_num}: {error}.") from error


def _cell(row: Sequence[str], table: _Table, key: str) -> str:
    at = table.columns.get(key, len(row))
    return row[at].strip() if at < len(row) else ""


def _numbers(row: Sequence[str], columns: list[int]) -> list[Any] | None:
    """The four numbers of a box, None for each that is none; [] where all are empty, None where some are missing."""
    cells = [row[at].strip() if at < len(row) else "" for at in columns]
    if len(columns) == 1:  # all in one cell, as in "[834.0, 222.0, 56.0, 36.0]"
        cells = re.split(r"[\s,;]+", cells[0].strip(" []()"))
    if not any(cells):
        return []
    values = [number(cell or "no") for cell in cells]
    return values if len(values) == 4 else None


def _are_shares(rows: Sequence[list[Any] | None]) -> bool:
    """Whether all numbers are shares of an image: none is above 1, and some is no whole number."""
    values = [value for row in rows for value in row or () if value is not None and value == value]
    return all(-1 <= value <= 1 for value in values) and any(value != int(value) for value in values)


def _images(root: Path, part: str, path: Path) -> Path:
    """The folder that names of images are relative to."""
    table = _head(path)
    names = (_cell(row, table, "image") for _, row in _rows(path, table)) if table else iter(())
    name = next((name for name in names if name), "")
    written = [name] if is_picture(name) or not name else [name + suffix for suffix in (".jpg", ".png", ".jpeg")]
    folders = [image_root(one, PART_NAMES[part], entries(root)[1]) for one in written]
    return next((folder for one, folder in zip(written, folders) if Pictures(folder).holds(one)), folders[0])


def _display_names(*folders: Path) -> dict[str, str]:
    """Open Images' names of classes, by its signs for them, from a table of two columns in one of the folders."""
    for folder in folders:
        for file in first_files(folder, ".csv", 50):
            if "class-descriptions" in file.name.lower():
                table = csv.reader(io.StringIO(read_text(file).lstrip("\ufeff")))
                return {row[0].strip(): row[1].strip() for row in table if len(row) == 2 and row[0].startswith("/m/")}
    return {}


class _Suffixes:
    """Names of image files for names without a suffix, as Open Images has them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, str] | None = None

    def full(self, name: str) -> str:
        if is_picture(name):
            return name
        if self._files is None:
            self._files = {Path(file).stem: file for file in reversed(pictures_below(self._folder))}
        return self._files.get(name, name)
