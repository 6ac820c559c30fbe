"""Checks a COCO JSON object, and corrects what would break or bend training and evaluation.

pycocotools evaluates only annotations that have `area` and `iscrowd`, takes no notice of those whose area is below 0
or above 1e10, and counts a detection of the annotation with id 0 as wrong (`COCOeval.evaluateImg` stores the matched id
and reads it as a truth value). Detectron2's `load_coco_json` stops at repeated annotation ids, at `ignore` and at ids
of several types, and leaves out objects whose polygons have fewer than three points.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from ..errors import FcosError
from .layout import PLACE, UNREADABLE
from .ledger import Report
from .masks import PLAIN, finite_numbers, usable_masks
from .meant import LARGEST_ID, flag, identity, number, shown

__all__ = ["Report", "clean", "require_lists"]

logger = logging.getLogger("fcos_d2")

_LARGEST_SIDE = 1e6  # pixels; float32 is exact to a sixteenth there, and infinite soon after float64's 1e38
_LARGEST_AREA = 1e10  # of what pycocotools counts
_needed = itemgetter("bbox", "area", "image_id", "category_id", "iscrowd")
_ENOUGH = 10  # boxes can show that a whole file is written in another way

_LEFT_OUT = ("no box", "degenerate", "unreadable")

# What is told about annotations, each with a few ids, or with places in files where a format has no ids.
_TOLD = {
    "no box": "annotations have no box ('bbox' is absent, null or empty) and count as no object",
    "degenerate": "boxes are degenerate (no width or height, not finite, or outside the image) and are left out of "
    "training and evaluation",
    "unreadable": "labels cannot be read and are left out of training and evaluation",
    "area": "annotations have an area that cannot be (0 or less, or more than the image's); that of the box is taken",
}


def clean(coco: Any, source: Path) -> Report:
    """Check a COCO JSON object and mend it in place, so that it loads and evaluates as it was meant.

    Numbers, flags and ids may be written as text or as 1.0. Boxes that are absent, null or empty, whose width or height
    is not above 0, is not finite, or that lie outside their image are left out, and so is what a reader could not read
    (`layout.UNREADABLE`). An `area` that is absent, or cannot be,
    becomes the box's, `ignore` becomes `iscrowd`, masks and keypoints that cannot be read go, and annotation ids that
    are absent, repeated or not whole numbers above 0 make all of them 1, 2, ... One warning of a kind says how many.

    Raises:
        FcosError: a key is missing, there is no image or category, ids repeat, an annotation refers to nothing, or a
            value has no meaning, such as a box of three numbers.
    """
    require_lists(coco, source)
    report = Report(len(coco["annotations"]))
    images = _images(coco["images"], source, report)
    categories = _categories(coco["categories"], source, report)
    coco["annotations"] = _annotations(coco["annotations"], images, categories, source, report)
    _check_convention(coco["annotations"], {row["id"]: row for row in coco["images"]}, source)
    return report


def require_lists(coco: Any, source: Path) -> None:
    """Raise FcosError unless a JSON value has COCO's three lists, and these hold objects."""
    if not isinstance(coco, dict):
        raise FcosError(f"{source} is not a COCO file: it holds a JSON {type(coco).__name__} instead of an object.")
    held = ", ".join(f"'{shown(key)}'" for key in list(coco)[:6]) or "no keys"
    for key in ("images", "annotations", "categories"):
        if not isinstance(coco.get(key), list):
            raise FcosError(f"{source} is not a COCO file: the list '{key}' is missing; it has {held}.")
        if any(not isinstance(row, dict) for row in coco[key]):
            raise FcosError(f"{source} is not a COCO file: an entry of '{key}' is not an object.")


def _images(images: list[dict], source: Path, report: Report) -> dict[int | str, dict]:
    """The images by their ids as these were meant; the ids themselves get one type, which sorting needs."""
    if not images:
        raise FcosError(f"{source} lists no images.")
    found: dict[int | str, dict] = {}
    for image in images:
        for key in ("id", "file_name", "width", "height"):
            if key not in image:
                raise FcosError(f"An image in {source} has no '{key}': {shown(image)}.")
        name, meant = image["file_name"], identity(image["id"])
        if not isinstance(name, str) or not name:
            raise FcosError(f"Image {shown(image['id'])} in {source} has the file_name {name!r}, which is not a name.")
        if meant is None:
            raise FcosError(
                f"Image {shown(name)} in {source} has the id {shown(image['id'])}: neither number nor text."
            )
        if meant in found:
            raise FcosError(f"{source} lists the image id {shown(meant)} twice; the second time for {shown(name)}.")
        sides = [number(image[key]) for key in ("width", "height")]
        if not all(side is not None and 0 < side < _LARGEST_SIDE and side == int(side) for side in sides):
            size = " x ".join(shown(image[key]) for key in ("width", "height"))
            raise FcosError(f"Image {shown(name)} in {source} has the size {size}; both must be whole numbers above 0.")
        report.put(image, **dict(zip(("width", "height"), (int(side or 0) for side in sides))))
        found[meant] = image
    whole = all(isinstance(meant, int) and abs(meant) <= LARGEST_ID for meant in found)
    for meant, image in found.items():
        report.put(image, id=meant if whole else str(meant))
    return found


def _categories(categories: list[dict], source: Path, report: Report) -> dict[int | str, dict]:
    """The categories by their ids as these were meant."""
    if not categories:
        raise FcosError(f"{source} lists no categories, so there is no class to detect.")
    found: dict[int | str, dict] = {}
    names = set()
    for category in categories:
        meant, name = identity(category.get("id")), category.get("name")
        if isinstance(name, (int, float)) and not isinstance(name, bool) and name == name:  # classes such as 0 to 9
            name = str(name)
        if not isinstance(meant, int) or abs(meant) > LARGEST_ID or not isinstance(name, str):
            raise FcosError(f"A category in {source} lacks an integer 'id' or a 'name': {shown(category)}.")
        name = name.encode("utf-8", "replace").decode("utf-8")  # half a character cannot be written anywhere
        if meant in found:
            raise FcosError(f"{source} lists the category id {meant} twice.")
        if name in names:
            logger.warning("%s has two categories named '%s'; they stay two classes.", source, shown(name))
        report.put(category, id=meant, name=name)
        found[meant] = category
        names.add(name)
    return found


def _annotations(rows: list[dict], images: Mapping, categories: Mapping, source: Path, report: Report) -> list[dict]:
    """The mended annotations that stay; the report accounts for all of them."""
    kept: list[dict] = []
    told: dict[str, list[dict]] = {kind: [] for kind in _TOLD}
    unknown: dict[str, list] = {"image_id": [], "category_id": []}
    for row in rows:
        if _is_sound(row, images, categories):
            kept.append(row)
            continue
        box = None if UNREADABLE in row else _box(row, source)
        image, category = images.get(identity(row.get("image_id"))), categories.get(identity(row.get("category_id")))
        if UNREADABLE in row:
            told["unreadable"].append(row)
        elif box is None or not _has_area(box):
            told["no box" if box is None else "degenerate"].append(row)
        elif image is None or category is None:
            unknown["image_id" if image is None else "category_id"].append(row)
        elif box[0] >= image["width"] or box[1] >= image["height"] or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
            told["degenerate"].append(row)
        else:
            if _mend(row, box, image, source, report):
                told["area"].append(row)
            report.put(row, image_id=image["id"], category_id=category["id"])
            kept.append(row)
    for (key, there), listed in zip(unknown.items(), ("images", "categories")):
        if there:
            raise FcosError(
                f"{len(there)} of {len(rows)} annotations in {source} have no known {key}; the first: annotation "
                f"{shown(_name_of(there[0]))}, {key} {shown(there[0].get(key))}, which is not in '{listed}'."
            )
    for kind, those in told.items():
        if kind in report.left_out or (kind in _LEFT_OUT and those):
            report.left_out[kind] = len(those)
            report.left_out_of[kind] = [images.get(identity(row.get("image_id")), {}).get("id") for row in those]
        if those:
            some = ", ".join(map(_told_of, those[:5])) + (", ..." if len(those) > 5 else "")
            which = "the first" if PLACE in rows[0] else "annotation ids"
            _warn_once(f"{source}: {len(those)} of {len(rows)} {_TOLD[kind]}; {which}: {some}.")
    report.crowds = sum(row["iscrowd"] for row in kept)
    report.objects = len(kept) - report.crowds
    numbers = [row.get("id") for row in kept]
    if not all(type(one) is int and 0 < one <= LARGEST_ID for one in numbers) or len(set(numbers)) < len(numbers):
        for one, row in enumerate(kept, start=1):
            report.put(row, id=one)
    return kept


def _name_of(row: dict) -> Any:
    """Where a person finds an annotation: its place in a file, or its id."""
    return row.get(PLACE, row.get("id"))


def _told_of(row: dict) -> str:
    """Where an annotation stands, and why it cannot be read."""
    why = f" ({shown(row[UNREADABLE])})" if UNREADABLE in row else ""
    return shown(f"{_name_of(row)}{why}") if why else shown(_name_of(row))


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _is_sound(row: dict, images: Mapping, categories: Mapping) -> bool:
    """Whether nothing needs to be mended: said at once of nearly all annotations, since files have millions of them."""
    try:
        box, area, number, category, crowd = _needed(row)
    except KeyError:
        return False
    if not (type(number) is type(category) is type(crowd) is int and type(box) is list and len(box) == 4):
        return False
    image, (x, y, width, height) = images.get(number), box
    if image is None or image["id"] != number or category not in categories or not 0 <= crowd <= 1:
        return False
    if not (type(x) in PLAIN and type(y) in PLAIN and type(width) in PLAIN and type(height) in PLAIN):
        return False
    if not (0 < width < _LARGEST_SIDE and 0 < height < _LARGEST_SIDE and x > -_LARGEST_SIDE and y > -_LARGEST_SIDE):
        return False
    if not (x < image["width"] and y < image["height"] and x + width > 0 and y + height > 0):
        return False
    if type(area) not in PLAIN or not 0 < area <= _LARGEST_AREA:
        return False
    if area > width * height and area > image["width"] * image["height"]:
        return False
    if UNREADABLE in row or "ignore" in row or row.get("keypoints"):
        return False
    masks = row.get("segmentation")
    return masks is None or usable_masks(masks) == masks


def _box(row: dict, source: Path) -> list[int | float] | None:
    """x, y, width and height as they were meant, NaN where one is null; None where there is no box."""
    given = row.get("bbox")
    if given is None or given == [] or given == "":
        return None
    box = [number(value) for value in given] if isinstance(given, list) else []
    if len(box) != 4 or None in box:
        raise FcosError(
            f"Annotation {shown(row.get('id'))} in {source} has the bbox {shown(given)}; it must be four numbers, x, "
            "y, width and height in pixels."
        )
    return box  # type: ignore[return-value]


def _has_area(box: list[int | float]) -> bool:
    return box[2] > 0 and box[3] > 0 and all(abs(value) < _LARGEST_SIDE for value in box)


def _mend(row: dict, box: list[int | float], image: dict, source: Path, report: Report) -> bool:
    """Give an annotation what pycocotools and Detectron2 ask for; whether it had an area that cannot be."""
    area, of_box = number(row.get("area")), float(box[2] * box[3])
    fits = area is not None and 0 < area <= min(max(of_box, image["width"] * image["height"]), _LARGEST_AREA)
    placeholder = not fits and row.get("area") is not None
    crowd = 0
    for key in ("iscrowd", "ignore"):
        meant = flag(row.get(key))
        if meant is None:
            raise FcosError(
                f"Annotation {shown(row.get('id'))} in {source} has {key} {shown(row[key])}; it must be 0 or 1."
            )
        crowd = max(crowd, meant)
    report.put(row, bbox=box, iscrowd=crowd, area=area if fits else min(of_box, _LARGEST_AREA))
    segmentation = usable_masks(row.get("segmentation"))
    useless = {"ignore"} | ({"segmentation"} if segmentation is None and row.get("segmentation") is not None else set())
    if row.get("keypoints") and not (
        len(finite_numbers(row["keypoints"])) % 3 == 0 < len(finite_numbers(row["keypoints"]))
    ):
        useless |= {"keypoints", "num_keypoints"}
    for key in useless & row.keys():
        del row[key]
        report.count(key)
    if segmentation is not None:
        report.put(row, segmentation=segmentation)
    return placeholder


def _check_convention(rows: list[dict], images: Mapping[int | str, dict], source: Path) -> None:
    """Raise FcosError if all boxes can be corners and many cannot be sizes, or if all are shares of the image."""
    corners = shares = True
    beyond = 0
    for row in rows:
        (x, y, width, height), image = row["bbox"], images[row["image_id"]]
        shares = shares and max(x + width, y + height) <= 1
        corners = corners and x < width <= image["width"] + 1 and y < height <= image["height"] + 1
        if not corners and not shares:
            return
        beyond += x + width > 1.1 * image["width"] or y + height > 1.1 * image["height"]
    if len(rows) < _ENOUGH:
        return
    if corners and beyond >= len(rows) / 4:
        raise FcosError(
            f"The boxes in {source} seem to be corners (x1, y1, x2, y2), since {beyond} of {len(rows)} would reach far "
            "beyond their image; COCO's 'bbox' is x, y, width and height in pixels."
        )
    if shares:
        raise FcosError(
            f"The boxes in {source} seem to be shares of the image, since none reaches beyond its first pixel; COCO's "
            "'bbox' is x, y, width and height in pixels."
        )
