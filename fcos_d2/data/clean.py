"""Checks a COCO JSON object, and corrects what would break training or evaluation.

pycocotools evaluates only annotations that have `area` and `iscrowd`, and counts a detection of the annotation with
id 0 as wrong (`COCOeval.evaluateImg` stores the matched id and reads it as a truth value). Detectron2's
`load_coco_json` stops at repeated annotation ids and at `ignore`, and leaves out objects whose polygons have fewer than
three points.
"""

from __future__ import annotations

import functools
import logging
import math
import textwrap
from pathlib import Path
from typing import Any

from ..errors import FcosError

__all__ = ["clean"]

logger = logging.getLogger("fcos_d2")


def clean(coco: Any, source: Path) -> bool:
    """Check a COCO JSON object and mend it in place, so that it both loads and evaluates; whether anything was changed.

    Boxes whose width or height is not above 0, is not finite, or that lie outside their image are dropped, and one
    warning a file says how many. Absent `area` becomes the box's, absent `iscrowd` becomes 0, `ignore` becomes
    `iscrowd`, and annotation ids that are absent, repeated or 0 make all of them 1, 2, ...

    Raises:
        FcosError: a key is missing, there is no image or category, ids repeat, or an annotation refers to nothing.
    """
    if not isinstance(coco, dict):
        raise FcosError(f"{source} is not a COCO file: it holds a JSON {type(coco).__name__} instead of an object.")
    held = ", ".join(f"'{key}'" for key in list(coco)[:6]) or "no keys"
    for key in ("images", "annotations", "categories"):
        if not isinstance(coco.get(key), list):
            raise FcosError(f"{source} is not a COCO file: the list '{key}' is missing; it has {held}.")
        if any(not isinstance(row, dict) for row in coco[key]):
            raise FcosError(f"{source} is not a COCO file: an entry of '{key}' is not an object.")
    sizes = _image_sizes(coco["images"], source)
    categories = _category_ids(coco["categories"], source)

    for key, known, listed in (("image_id", sizes, "images"), ("category_id", categories, "categories")):
        if rows := [row for row in coco["annotations"] if _hashable(row.get(key)) not in known]:
            raise FcosError(
                f"{len(rows)} of {len(coco['annotations'])} annotations in {source} have no known {key}; the first: "
                f"annotation {rows[0].get('id')}, {key} {rows[0].get(key)!r}, which is not in '{listed}'."
            )
    kept, dropped, changed = [], [], False
    for annotation in coco["annotations"]:
        if _is_degenerate(annotation, sizes[_hashable(annotation.get("image_id"))], source):
            dropped.append(annotation.get("id"))
        else:
            changed |= _mend(annotation)
            kept.append(annotation)
    if dropped:
        ids = ", ".join(map(str, dropped[:5])) + (", ..." if len(dropped) > 5 else "")
        _warn_once(
            f"{source}: {len(dropped)} of {len(coco['annotations'])} boxes are degenerate (no width or height, "
            f"not finite, or outside the image) and are left out of training and evaluation; annotation ids: {ids}."
        )
    coco["annotations"] = kept
    numbers = [annotation.get("id") for annotation in kept]
    if not all(type(number) is int and number > 0 for number in numbers) or len(set(numbers)) < len(numbers):
        changed = True
        for number, annotation in enumerate(kept, start=1):
            annotation["id"] = number
    return changed or bool(dropped)


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _image_sizes(images: list[dict], source: Path) -> dict[object, tuple[float, float]]:
    """(width, height) of every image id."""
    if not images:
        raise FcosError(f"{source} lists no images.")
    sizes: dict[object, tuple[float, float]] = {}
    for image in images:
        for key in ("id", "file_name", "width", "height"):
            if key not in image:
                raise FcosError(f"An image in {source} has no '{key}': {_short(image)}.")
        name, number, width, height = image["file_name"], _hashable(image["id"]), image["width"], image["height"]
        if not isinstance(name, str) or not name:
            raise FcosError(f"Image {number} in {source} has the file_name {name!r}, which is not a name.")
        if not all(_is_number(side) and 0 < side < math.inf for side in (width, height)):
            raise FcosError(f"Image {name} in {source} has the size {width!r} x {height!r}; both must be above 0.")
        if number in sizes:
            raise FcosError(f"{source} lists the image id {number!r} twice; the second time for {name}.")
        sizes[number] = (width, height)
    return sizes


def _category_ids(categories: list[dict], source: Path) -> set[int]:
    if not categories:
        raise FcosError(f"{source} lists no categories, so there is no class to detect.")
    ids, names = set(), set()
    for category in categories:
        number, name = category.get("id"), category.get("name")
        if type(number) is not int or not isinstance(name, str):
            raise FcosError(f"A category in {source} lacks an integer 'id' or a 'name': {_short(category)}.")
        if number in ids:
            raise FcosError(f"{source} lists the category id {number} twice.")
        if name in names:
            logger.warning("%s has two categories named '%s'; they stay two classes.", source, name)
        ids.add(number)
        names.add(name)
    return ids


def _is_degenerate(annotation: dict, size: tuple[float, float], source: Path) -> bool:
    """Whether nothing of a box lies in an image of a size (width, height)."""
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise FcosError(
            f"Annotation {annotation.get('id')} in {source} has the bbox {bbox!r}; it must be four numbers, "
            "x, y, width and height in pixels."
        )
    x, y, width, height = bbox
    if not all(map(math.isfinite, bbox)) or width <= 0 or height <= 0:
        return True
    return x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0


def _mend(annotation: dict) -> bool:
    """Give an annotation what pycocotools and Detectron2 ask for; say whether it lacked anything."""
    area: Any = annotation.get("area")
    crowd = annotation.get("iscrowd")
    mended = not _is_number(area) or not math.isfinite(area)
    if mended:
        annotation["area"] = float(annotation["bbox"][2] * annotation["bbox"][3])
    if "ignore" in annotation:
        crowd = crowd or annotation.pop("ignore")
        mended = True
    mended |= type(crowd) is not int or crowd not in (0, 1) or "iscrowd" not in annotation
    annotation["iscrowd"] = int(bool(crowd))
    segmentation = annotation.get("segmentation")
    if segmentation is not None and not _is_usable(segmentation):
        del annotation["segmentation"]
        mended = True
    return mended


def _is_usable(segmentation: object) -> bool:
    """Whether it is run lengths, or has a polygon of at least three points."""
    if isinstance(segmentation, dict):
        return {"counts", "size"} <= segmentation.keys()
    return isinstance(segmentation, list) and any(
        isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _hashable(value: object) -> object:
    return value if isinstance(value, (int, str, type(None))) else repr(value)


def _short(row: dict) -> str:
    return textwrap.shorten(repr(row), 120, placeholder="...")
