"""A folder on disk -> a data set in Detectron2's catalog, and from there batches.

A format is a row of `FORMATS` (`fcos_d2.data.formats`): it finds its parts in a folder and reads the ground truth of
one as COCO's JSON object.
Checks, cleaning, registration and evaluation are common to all of them (`fcos_d2.data.coco`).

What may be changed here: how images and boxes are read, checked and put into batches. Nothing here knows a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import importer

if TYPE_CHECKING:
    from .catalog import read_parts as read_parts
    from .catalog import register as register
    from .catalog import require_parts as require_parts
    from .coco import class_names as class_names
    from .coco import register_coco as register_coco
    from .formats import FORMATS as FORMATS
    from .formats.recognise import find_dataset as find_dataset
    from .formats.recognise import format_named as format_named
    from .layout import DatasetFormat as DatasetFormat
    from .layout import DatasetLayout as DatasetLayout
    from .layout import DatasetNames as DatasetNames
    from .layout import Split as Split

_HOMES = {
    "FORMATS": "formats", "DatasetFormat": "layout", "DatasetLayout": "layout", "DatasetNames": "layout",
    "Split": "layout", "class_names": "coco", "find_dataset": "formats.recognise", "format_named": "formats.recognise",
    "read_parts": "catalog", "register": "catalog", "register_coco": "coco", "require_parts": "catalog",
}  # fmt: skip

__all__ = [
    "FORMATS", "DatasetFormat", "DatasetLayout", "DatasetNames", "Split", "class_names", "find_dataset", "format_named",
    "read_parts", "register", "register_coco", "require_parts",
]  # fmt: skip

__getattr__ = importer(__name__, _HOMES)  # who only looks at pictures needs no format of labels
