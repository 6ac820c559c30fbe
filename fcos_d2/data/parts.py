"""The parts of a data set with all their labels, to be written anew: read, checked, and divided."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import FcosError
from . import DatasetLayout, format_named, read_parts
from .coco import prepare
from .divide import divide, grouping
from .layout import UNREADABLE
from .meant import LARGEST_ID, flag, identity, number

__all__ = ["Part", "divided", "open_parts"]

_LARGEST = 1e6  # pixels; float64 holds no thousandth of what is much larger


@dataclass(frozen=True)
class Part:
    """One part of a data set: COCO's JSON object, checked, with the degenerate boxes, too."""

    coco: dict
    files: Mapping[int | str, Path]  # image id -> the image
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason -> annotations that are no box in any format
    degenerate: frozenset[int | str] = frozenset()  # ids of boxes that training leaves out


def open_parts(layout: DatasetLayout) -> dict[str, Part]:
    """Read and check all parts of a data set; the classes are those of all, in the order of the first part.

    Raises:
        FcosError: a part is wrong, or lacks images.
    """
    objects = read_parts(layout, need=tuple(layout.splits))
    names = [name for name in ("train", "val", "test") if name in objects]
    return _with_common_classes({name: _open(layout, name, objects.pop(name)) for name in names})


def _open(layout: DatasetLayout, name: str, coco: dict) -> Part:
    listed = coco.get("annotations") if isinstance(coco, dict) else None  # cleaning makes a new list of what is kept
    split = layout.splits[name]
    coco = prepare(split, format_named(layout.format).read, coco).coco
    kept = {id(row) for row in coco["annotations"]}
    images = {identity(row["id"]): row["id"] for row in coco["images"]}
    categories = {row["id"] for row in coco["categories"]}
    used = {row["id"] for row in coco["annotations"]}
    left_out: Counter[str] = Counter()
    rows, degenerate = [], set()
    for row in listed or ():
        if id(row) not in kept:
            row, why = _degenerate(row, images, categories)
            if why:
                left_out[why] += 1
                continue
            if row["id"] in used:
                row["id"] = max(used) + 1
            used.add(row["id"])
            degenerate.add(row["id"])
        rows.append(row)
    coco["annotations"] = rows
    if layout.format != "coco":  # whose ids are somebody's; others have none, or count from 0, which COCO's do not
        _number_classes(coco)
    files = {row["id"]: split.images / row["file_name"] for row in coco["images"]}
    return Part(coco, files, left_out, frozenset(degenerate))


def _degenerate(row: dict, images: Mapping, categories: set) -> tuple[dict, str]:
    """A box that training leaves out, with numbers and ids as they were meant, or the reason why it is no box."""
    if UNREADABLE in row:
        return row, "unreadable"
    box = [number(value) for value in row.get("bbox") or ()]
    image, category = images.get(identity(row.get("image_id"))), identity(row.get("category_id"))
    if len(box) != 4:
        return row, "no box"
    x, y, width, height = (math.nan if value is None else value for value in box)
    if not all(abs(value) < _LARGEST for value in (x, y, width, height)):
        return row, "not finite"
    if image is None or category not in categories:
        return row, "no image" if image is None else "no class"
    crowd = max(flag(row.get("iscrowd")) or 0, flag(row.get("ignore")) or 0)
    one = identity(row.get("id"))
    fixed: dict[str, Any] = {"id": one if isinstance(one, int) and 0 < one <= LARGEST_ID else 1, "image_id": image}
    kept = {key: value for key, value in row.items() if key != "ignore"}
    fixed |= {"category_id": category, "bbox": [x, y, width, height], "area": width * height, "iscrowd": crowd}
    return {**kept, **fixed}, ""


def _number_classes(coco: dict) -> None:
    """Number the classes from 1 on, in their order."""
    categories = sorted(coco["categories"], key=lambda row: row["id"])
    numbers = {row["id"]: number for number, row in enumerate(categories, start=1)}
    coco["categories"] = [{**row, "id": numbers[row["id"]]} for row in categories]
    for row in coco["annotations"]:
        row["category_id"] = numbers[row["category_id"]]


def _with_common_classes(parts: Mapping[str, Part]) -> dict[str, Part]:
    """The parts with the classes of all, found by their names, in the order of the first part, then of the others."""
    listed = {name: sorted(part.coco["categories"], key=lambda row: row["id"]) for name, part in parts.items()}
    names = {name: [row["name"] for row in rows] for name, rows in listed.items()}
    first = next(iter(parts))
    same = all(there == names[first] for there in names.values())
    if not same and any(len(set(there)) < len(there) for there in names.values()):
        raise FcosError(
            f"The parts {' and '.join(parts)} have different classes, some of which share a name, so they cannot be "
            "matched: give each class a name of its own."
        )
    classes: dict[Any, dict] = {}
    numbers: dict[str, dict[int, int]] = {}
    for name, rows in listed.items():
        for position, row in enumerate(rows):
            key = position if same else row["name"]
            if key not in classes:
                used = {row["id"] for row in classes.values()}
                classes[key] = row if name == first else {**row, "id": max(used) + 1}
            numbers.setdefault(name, {})[row["id"]] = classes[key]["id"]
    found = {}
    for name, part in parts.items():
        rows, new = part.coco["annotations"], numbers[name]
        if any(before != after for before, after in new.items()):
            rows = [{**row, "category_id": new[row["category_id"]]} for row in rows]
        found[name] = replace(part, coco={**part.coco, "categories": list(classes.values()), "annotations": rows})
    return found


def divided(
    parts: Mapping[str, Part], shares: Mapping[str, float], *, group: str | None = None, stratify: bool = False,
    pool: bool = False,
) -> dict[str, Part]:  # fmt: skip
    """Divide the train part; the others stay as they are.

    Args:
        parts: what `open_parts` read.
        shares: "val" and "test" -> share of the images; see `divide`.
        group: rule for names of images that stay together, see `grouping`.
        stratify: whether classes get about equal shares of their boxes, instead of images by the hash of their names.
        pool: whether the images of all parts are divided anew.
    Raises:
        FcosError: there is no train part, a part that is asked for is there, or the shares are no shares.
    """
    if not pool and "train" not in parts:
        raise FcosError(
            f"The data set has no train part to divide, only {', '.join(parts)}: --pool divides all images."
        )
    if not pool and (there := [part for part in shares if part in parts]):
        raise FcosError(f"The data set has a {there[0]} part already: --pool divides the images of all parts anew.")
    whole = _pooled(list(parts.values())) if pool else parts["train"]
    images, rows = whole.coco["images"], whole.coco["annotations"]
    labels: dict[Any, list] = {row["id"]: [] for row in images}
    for row in rows:
        labels[row["image_id"]].append(row["category_id"])
    names = [row["file_name"] for row in images]
    chosen = divide(names, shares, grouping(group), [labels[row["id"]] for row in images] if stratify else None)
    of = {row["id"]: part for row, part in zip(images, chosen)}
    made = {
        part: replace(
            whole,
            coco={
                **whole.coco,
                "images": [row for row in images if of[row["id"]] == part],
                "annotations": [row for row in rows if of[row["image_id"]] == part],
            },
            left_out=whole.left_out if part == "train" else {},
        )
        for part in ("train", *shares)
    }
    found = made if pool else {**parts, **made}
    return {part: found[part] for part in ("train", "val", "test") if part in found}


def _pooled(parts: Sequence[Part]) -> Part:
    """All images and labels in one part, with new ids."""
    images: list[dict] = []
    rows: list[dict] = []
    files: dict[int | str, Path] = {}
    degenerate = set()
    left_out: Counter[str] = Counter()
    for part in parts:
        numbers = {row["id"]: number for number, row in enumerate(part.coco["images"], start=len(images) + 1)}
        images += [{**row, "id": numbers[row["id"]]} for row in part.coco["images"]]
        files |= {numbers[one]: path for one, path in part.files.items()}
        left_out.update(part.left_out)
        for row in part.coco["annotations"]:
            rows.append({**row, "id": len(rows) + 1, "image_id": numbers[row["image_id"]]})
            if row["id"] in part.degenerate:
                degenerate.add(len(rows))
    return Part({**parts[0].coco, "images": images, "annotations": rows}, files, left_out, frozenset(degenerate))
