"""Formats of data sets, a row each: how it is recognised in a folder, and how a part is read as COCO's JSON object.

A reader hands on every label that the files have: a box as it is written (whatever it is worth), or, where there is no
box in it, the reason (`layout.UNREADABLE`). What becomes of them is decided in one place, `fcos_d2.data.clean`.

What may be changed here: which files are read, and how. A new format is a module with `find` and `read`, and a row.
"""

from __future__ import annotations

from .. import coco, places
from ..layout import DatasetFormat
from . import voc, yolo

__all__ = ["FORMATS"]

FORMATS: tuple[DatasetFormat, ...] = (
    DatasetFormat("coco", places.LOOKS_FOR, places.find, coco.read),
    DatasetFormat("yolo", yolo.LOOKS_FOR, yolo.find, yolo.read),
    DatasetFormat("voc", voc.LOOKS_FOR, voc.find, voc.read),
    DatasetFormat("voc0", "the same with corners from 0", voc.find, voc.read_from_zero, when_asked=True),
)
