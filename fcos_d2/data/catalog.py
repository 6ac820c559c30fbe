"""The parts of a data set: read together, checked against each other, and entered into Detectron2's catalog."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection
from pathlib import Path

from ..errors import FcosError
from . import coco
from .formats.labels import unite_classes
from .formats.recognise import format_named
from .layout import DatasetLayout, DatasetNames

__all__ = ["read_parts", "register", "require_parts"]

logger = logging.getLogger("fcos_d2")


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
    layout: DatasetLayout, prefix: str, val_fraction: float | None = None, need: Collection[str] = ("train", "val"), *,
    numbered: bool = False,
) -> DatasetNames:  # fmt: skip
    """Check a data set and enter its parts into Detectron2's catalog.

    Args:
        layout: what `find_dataset` returned.
        prefix: start of the names `<prefix>_train`, `<prefix>_val` and `<prefix>_test`.
        val_fraction: in (0, 1): where the folder has no val part, about this share of the training images becomes it.
            An image's side depends on its file name alone (unless a part would be empty), so that neither order nor
            repetition nor other images change it.
        need: the parts that must be there and be right; another part with an error is left out with a warning.
        numbered: where the names stand for other data already, as they do for a second folder called `data`, the first
            of `<prefix>_2`, `<prefix>_3`, ... that does not takes the prefix's place.
    Returns:
        The names.
    Raises:
        FcosError: a needed part is missing or wrong, or has a class that the train part lacks; or a name is taken, and
            the names are not numbered.
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
    if numbered:
        prefixes = itertools.chain((prefix,), (f"{prefix}_{number}" for number in itertools.count(2)))
        prefix = next(text for text in prefixes if not any(row.taken(f"{text}_{part}") for part, row in parts.items()))
    return DatasetNames(**{part: prepared.register(f"{prefix}_{part}") for part, prepared in parts.items()})
