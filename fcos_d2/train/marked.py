"""What is marked in one image of a data set of one's own, for `fcos explain`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from ..errors import FcosError
from .own_data import open_data

__all__ = ["image_of", "with_labels_of"]


def image_of(data: Path, image: str, format: str | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Find an image in a data set.

    Args:
        data: the folder or archive of the data set.
        image: its file, or the end of its path (`0001.jpg`, `train/0001.jpg`).
        format: of the data set, see `data.find_dataset`.
    Returns:
        Its record in Detectron2's format, and the names of the classes.
    Raises:
        FcosError: it is not in the data set, or several images have that name.
    """
    own = open_data(data, need=(), format=format)
    names = [name for name in vars(own.names).values() if name is not None]
    records = [record for name in names for record in DatasetCatalog.get(name)]
    found = [record for record in records if _same_file(record["file_name"], image)]
    if not found:
        words = Path(image).parts
        found = [record for record in records if Path(record["file_name"]).parts[-len(words) :] == words]
    files = {os.path.realpath(record["file_name"]) for record in found}
    if len(files) != 1:
        many = f"has {len(files)} images of that name: give more of its path" if files else "has no such image"
        raise FcosError(f"{image} cannot be looked up in {data}, which {many}.")
    return found[0], own.class_names


def with_labels_of(record: Mapping[str, Any], names: Sequence[str], known: Sequence[str], data: Path) -> dict[str, Any]:
    """A record whose classes are numbered as the detector's are.

    Args:
        record: in Detectron2's format.
        names: of the data's classes.
        known: names of the detector's classes.
        data: for the message.
    Raises:
        FcosError: an object in the image is of a class that the detector does not know.
    """
    rows = record.get("annotations", ())
    for row in rows:
        if (name := names[row["category_id"]]) not in known:
            raise FcosError(f"{data} has the class {name!r}, which the detector does not know: {', '.join(known)}.")
    numbered = [{**row, "category_id": known.index(names[row["category_id"]])} for row in rows]
    return {**record, "annotations": numbered}


def _same_file(name: str, image: str) -> bool:
    try:
        return os.path.samefile(name, image)
    except OSError:
        return False
