"""Formats of data sets, a row each: how it is recognised in a folder, and how a part is read as COCO's JSON object.

A reader hands on every label that the files have: a box as it is written (whatever it is worth), or, where there is no
box in it, the reason (`layout.UNREADABLE`). What becomes of them is decided in one place, `fcos_d2.data.clean`.

What may be changed here: which files are read, and how. A new format is a module with `find` and `read`, and a row.
"""

from __future__ import annotations

from pathlib import Path

from .. import coco, places
from ..layout import DatasetFormat, Split
from . import cvat, labelme, labelstudio, tables, voc, yolo
from .json_kinds import kind_of

__all__ = ["FORMATS"]


def _find_coco(root: Path) -> dict[str, Split]:
    """The parts of a COCO data set, but JSON files of other tools by COCO's names."""
    return {part: split for part, split in places.find(root).items() if kind_of(split.annotations) in _COCO}


_COCO = ("coco", "unknown", "")  # kinds of files that may be COCO's, damaged ones among them

FORMATS: tuple[DatasetFormat, ...] = (
    DatasetFormat("coco", places.LOOKS_FOR, _find_coco, coco.read),
    DatasetFormat("yolo", yolo.LOOKS_FOR, yolo.find, yolo.read),
    DatasetFormat("voc", voc.LOOKS_FOR, voc.find, voc.read),
    DatasetFormat("voc0", "as voc, with corners from 0", voc.find, voc.read_from_zero, when_asked=True),
    DatasetFormat("csv", tables.LOOKS_FOR, tables.find, tables.read),
    DatasetFormat("labelstudio", labelstudio.LOOKS_FOR, labelstudio.find, labelstudio.read),
    DatasetFormat("labelme", labelme.LOOKS_FOR, labelme.find, labelme.read),
    DatasetFormat("cvat", cvat.LOOKS_FOR, cvat.find, cvat.read),
)
