"""A folder on disk -> a data set in Detectron2's catalog, and from there batches.

A format is a row of `FORMATS` (`fcos_d2.data.formats`): it finds its parts in a folder and reads the ground truth of
one as COCO's JSON object.
Checks, cleaning, registration and evaluation are common to all of them (`fcos_d2.data.coco`).

What may be changed here: how images and boxes are read, checked and put into batches. Nothing here knows a model.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from ..errors import FcosError
from . import coco, places
from .coco import class_names, register_coco
from .formats import FORMATS
from .formats.labels import unite_classes
from .layout import DatasetFormat, DatasetLayout, DatasetNames, Split

__all__ = [
    "FORMATS", "DatasetFormat", "DatasetLayout", "DatasetNames", "Split", "class_names", "find_dataset", "format_named",
    "read_parts", "register", "register_coco", "require_parts",
]  # fmt: skip

logger = logging.getLogger("fcos_d2")


def format_named(name: str) -> DatasetFormat:
    """The row of `FORMATS` of this name; raises FcosError if there is none."""
    for row in FORMATS:
        if row.name == name:
            return row
    raise FcosError(f"There is no format '{name}'; there are {', '.join(row.name for row in FORMATS)}.")


def find_dataset(folder: str | Path, format: str | None = None) -> DatasetLayout:
    """Recognise the data set in a folder; a part that it lacks is not in `splits`.

    Args:
        folder: holds the data set.
        format: name of the row of `FORMATS` that it has; by default what its files look like.
    Raises:
        FcosError: the folder is missing, not a folder, empty, or holds no known format, or several.
    """
    rows = [row for row in FORMATS if not row.when_asked] if format is None else [format_named(format)]
    root = Path(folder).expanduser()
    if not root.exists():
        raise FcosError(f"The data set folder {root} does not exist.")
    if not root.is_dir():
        raise FcosError(f"{root} is a file; give the folder that holds the data set.")
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    if not entries:
        raise FcosError(f"The data set folder {root} is empty.")
    found = [DatasetLayout(row.name, root, splits) for row in rows if (splits := row.find(root))]
    if len(found) > 1:
        names = " and as ".join(f"{one.format} ({_first_file(one)})" for one in found)
        raise FcosError(
            f"{root} can be read as {names}: say which is meant with --format {found[0].format} or --format "
            f"{found[1].format} (in Python format='{found[1].format}')."
        )
    if found:
        return found[0]
    looked_for = "; ".join(f"{row.name}: {row.looks_for}" for row in rows) + places.rename_hint(root)
    raise FcosError(f"No data set found in {root}, which holds {coco.shortened(entries)}; looked for {looked_for}.")


def _first_file(layout: DatasetLayout) -> str:
    """Where the first part of a data set stands, from its folder."""
    return next(iter(layout.splits.values())).annotations.relative_to(layout.root).as_posix()


def read_parts(layout: DatasetLayout, need: Collection[str]) -> dict[str, dict]:
    """Ground truth of the parts as COCO's JSON objects, as their files have it, with the same classes in each.

    Args:
        layout: what `find_dataset` returned.
        need: the parts that must be right; another part with an error is left out with a warning.
    Raises:
        FcosError: the files of a needed part cannot be read.
    """
    row, found = format_named(layout.format), {}
    for part, split in layout.splits.items():
        try:
            found[part] = row.read(split)
        except FcosError as error:
            if part in need:
                raise
            logger.warning("The %s part of %s is left out: %s", part, layout.root, error)
    unite_classes(list(found.values()))
    return found


def require_parts(root: Path, there: Collection[str], need: Collection[str]) -> None:
    """Raise FcosError if a data set lacks a part; the message says what it has, and what to do."""
    for part in need:
        if part in there:
            continue
        advice = "; found: " + (", ".join(there) or "nothing")
        if part == "val" and "train" in there:
            advice = (
                ": add one (for example val.json beside train.json), or ask for a share of the training images "
                "with val_fraction (--val-fraction 0.2)"
            )
        raise FcosError(f"The data set {root} has no {part} part{advice}.")


def register(
    layout: DatasetLayout, prefix: str, val_fraction: float | None = None, need: Collection[str] = ("train", "val")
) -> DatasetNames:
    """Check a data set and enter its parts into Detectron2's catalog.

    Args:
        layout: what `find_dataset` returned.
        prefix: start of the names `<prefix>_train`, `<prefix>_val` and `<prefix>_test`.
        val_fraction: in (0, 1): where the folder has no val part, about this share of the training images becomes it.
            An image's side depends on its file name alone (unless a part would be empty), so that neither order nor
            repetition nor other images change it.
        need: the parts that must be there and be right; another part with an error is left out with a warning.
    Returns:
        The names.
    Raises:
        FcosError: a needed part is missing or wrong, or has a class that the train part lacks.
    """
    reader = format_named(layout.format).read
    parts: dict[str, coco.Prepared] = {}
    objects = read_parts(layout, need)
    for part in ("train", "val", "test"):
        if part not in objects:
            continue
        try:
            found = coco.prepare(layout.splits[part], reader, objects.pop(part))
            if part == "train":
                found.require_boxes()
            for first in tuple(parts.values())[:1]:
                found = coco.match_classes(first, found)
        except FcosError as error:
            if part in need:
                raise
            logger.warning("The %s part of %s is left out: %s", part, layout.root, error)
        else:
            parts[part] = found

    if "val" not in parts and "train" in parts and val_fraction is not None:
        parts["train"], parts["val"] = parts["train"].divide(val_fraction)
        parts["train"].require_boxes()
    require_parts(layout.root, parts, need)
    return DatasetNames(**{part: prepared.register(f"{prefix}_{part}") for part, prepared in parts.items()})
