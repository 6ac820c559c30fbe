"""Checks a COCO JSON object, and corrects what would break training or evaluation.

pycocotools evaluates only annotations that have `area` and `iscrowd`, and counts a detection of the annotation with
id 0 as wrong (`COCOeval.evaluateImg` stores the matched id and reads it as a truth value). Detectron2's
`load_coco_json` stops at repeated annotation ids and at `ignore`, and leaves out objects whose polygons have fewer than
three points.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FcosError

__all__ = ["Cleaned", "clean"]

logger = logging.getLogger("fcos_d2")


@dataclass(frozen=True)
class Cleaned:
    """A COCO JSON object that both load and evaluate."""

    coco: dict
    changed: bool  # whether anything differs from what was read
    dropped: tuple[object, ...]  # ids of the annotations whose box was degenerate


def clean(coco: object, source: Path) -> Cleaned:
    """Check a COCO JSON object and mend its annotations.

    Boxes whose width or height is not above 0, is not finite, or that lie outside their image are dropped. Absent
    `area` becomes the box's, absent `iscrowd` becomes 0, `ignore` becomes `iscrowd`, and annotation ids that are
    absent, repeated or 0 make all of them 1, 2, ...

    Args:
        coco: what was read; its annotations are changed in place.
        source: the file it came from, for the messages.
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

    kept, dropped, changed = [], [], False
    unknown: dict[str, list[dict]] = {"image_id": [], "category_id": []}
    for annotation in coco["annotations"]:
        size = sizes.get(_hashable(annotation.get("image_id")))
        if size is None:
            unknown["image_id"].append(annotation)
        elif _hashable(annotation.get("category_id")) not in categories:
            unknown["category_id"].append(annotation)
        elif _is_degenerate(_bbox(annotation, source), *size):
            dropped.append(annotation.get("id"))
        else:
            changed |= _mend(annotation)
            kept.append(annotation)
    for key, listed in (("image_id", "images"), ("category_id", "categories")):
        if rows := unknown[key]:
            raise FcosError(
                f"{len(rows)} of {len(coco['annotations'])} annotations in {source} have no known {key}; the first: "
                f"annotation {rows[0].get('id')}, {key} {rows[0].get(key)!r}, which is not in '{listed}'."
            )
    ids = [annotation.get("id") for annotation in kept]
    if not all(type(number) is int and number > 0 for number in ids) or len(set(ids)) < len(ids):
        changed = True
        for number, annotation in enumerate(kept, start=1):
            annotation["id"] = number
    return Cleaned({**coco, "annotations": kept}, changed or bool(dropped), tuple(dropped))


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
        if not (_is_number(width) and _is_number(height) and 0 < width < math.inf and 0 < height < math.inf):
            raise FcosError(f"Image {name} in {source} has the size {width!r} x {height!r}; both must be above 0.")
        if number in sizes:
            raise FcosError(f"{source} lists the image id {number!r} twice; the second time for {name}.")
        sizes[number] = (width, height)
    return sizes


def _category_ids(categories: list[dict], source: Path) -> set[object]:
    if not categories:
        raise FcosError(f"{source} lists no categories, so there is no class to detect.")
    ids, names = set(), set()
    for category in categories:
        if type(category.get("id")) is not int or not isinstance(category.get("name"), str):
            raise FcosError(f"A category in {source} lacks an integer 'id' or a 'name': {_short(category)}.")
        if category["id"] in ids:
            raise FcosError(f"{source} lists the category id {category['id']} twice.")
        if category["name"] in names:
            logger.warning("%s has two categories named '%s'; they stay two classes.", source, category["name"])
        ids.add(category["id"])
        names.add(category["name"])
    return ids


def _bbox(annotation: dict, source: Path) -> list[float]:
    """x, y, width, height in pixels."""
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise FcosError(
            f"Annotation {annotation.get('id')} in {source} has the bbox {bbox!r}; it must be four numbers, "
            "x, y, width and height in pixels."
        )
    return bbox


def _is_degenerate(bbox: list[float], image_width: float, image_height: float) -> bool:
    x, y, width, height = bbox
    if not all(map(math.isfinite, bbox)) or width <= 0 or height <= 0:
        return True
    return x >= image_width or y >= image_height or x + width <= 0 or y + height <= 0


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
    text = repr(row)
    return text if len(text) <= 120 else text[:117] + "..."
