"""A data set -> the files of one format: a row for each that can be written, and what it can say.

What may be changed here: the text of label files. What is kept, counted and told is common to all (`data.convert`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import coco, voc, yolo

__all__ = ["WRITERS", "Writer"]


@dataclass(frozen=True)
class Writer:
    """One format: where images go, how labels are written, and what labels can say."""

    name: str
    images: str  # where an image lies, from the new folder on: of its {part} and its {name}
    write: Callable[[Path, Mapping[str, dict]], None]  # the labels of all parts, as COCO's JSON objects, into a folder
    names: Callable[[list[str]], list[str]] = list  # class names as the format can have them
    one_file_each: bool = True  # whether labels are found by the image's name, which must be one of its own then
    by_folder: bool = False  # whether all images of a folder belong to its part
    flat: bool = False  # whether names of images have no folders
    anything: bool = False  # whether every field of an annotation is kept
    crowds: bool = True  # whether it can say that a region is a crowd, or an object difficult
    shares: bool = False  # whether boxes are shares of the image, from 0 to 1


WRITERS: dict[str, Writer] = {
    row.name: row
    for row in (
        Writer("coco", "images/{part}/{name}", coco.write, one_file_each=False, anything=True),
        Writer(
            "yolo", "images/{part}/{name}", yolo.write, yolo.writable_names, by_folder=True, crowds=False, shares=True
        ),
        Writer("voc", "JPEGImages/{name}", voc.write, voc.writable_names, flat=True),
    )
}
