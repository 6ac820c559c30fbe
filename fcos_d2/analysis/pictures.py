"""Pictures of the objects that no location is assigned to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.images import open_image, rgb
from ..data.pictures import Pictures
from ..visualize.boxes import Drawable
from ..visualize.crops import Crop, draw_crops
from .objects import Objects
from .reasons import LOST, Lost

__all__ = ["PATTERN", "crops", "draw_lost"]

PATTERN = "unlearnable-*.jpg"
_A_PAGE = 60
_AROUND, _LEAST, _MOST = 3.0, 120.0, 600  # sides of what is kept of a picture over those of the box, and pixels


def draw_lost(
    objects: Objects, those: Sequence[Lost], folder: Path, progress: Callable[[], Any] = lambda: None
) -> tuple[dict[int, str], int]:
    """Draw objects that are lost on pages, each with the boxes that cover it.

    Args:
        objects: of one part.
        those: what is drawn, in this order of reasons.
        folder: where the pages go.
        progress: called for each object.
    Returns:
        Object -> name of its page, and the number of objects whose picture cannot be read.
    """
    ordered = sorted(those, key=lambda one: (list(LOST).index(one.reason), int(objects.image[one.object])))
    pages: dict[int, str] = {}
    page: list[tuple[Lost, Crop]] = []
    failed = 0
    names, part = objects.table.class_names, objects.table.name

    def write() -> None:
        name = PATTERN.replace("*", f"{part}-{1 + len(set(pages.values())):03}")
        sections = [(reason, [crop for one, crop in page if one.reason == reason]) for reason in LOST]
        draw_crops([pair for pair in sections if pair[1]], names, folder / name, f"No location learns these ({part})")
        pages.update({one.object: name for one, _ in page})
        page.clear()

    for one, crop in crops(objects, ordered):
        progress()
        if crop is None:
            failed += 1
            continue
        page.append((one, crop))
        if len(page) == _A_PAGE:
            write()
    if page:
        write()
    return pages, failed


def crops(objects: Objects, those: Sequence[Lost]) -> Iterator[tuple[Lost, Crop | None]]:
    """What is lost, with its part of the picture; None where that cannot be read. A picture is held one at a time."""
    pictures, place, image = Pictures(objects.split.images), -1, None
    for one in those:
        row = int(objects.image[one.object])
        if row != place:
            place, image = row, _read(pictures, objects.table.images[row].get("file_name"))
        if image is None:
            yield one, None
            continue
        drawn = [*one.by, one.object]
        scale = np.tile((image.width, image.height) / objects.frame[one.object], 2)
        boxes = objects.corners[drawn] * scale
        width, height = one.sides
        name = str(objects.table.images[row].get("file_name"))
        label = objects.table.class_names[int(objects.label[one.object])]
        lines = [f"{label}, {width:.1f} x {height:.1f} px at the input", Path(name).name]
        yield one, _cut(image, boxes, objects.label[drawn], lines)


def _read(pictures: Pictures, name: Any) -> Image.Image | None:
    if not isinstance(name, str) or not pictures.holds(name):
        return None
    try:
        with open_image(pictures.root / name) as opened:
            return rgb(opened)
    except Exception:  # Pillow's plugins raise anything; `fcos check` tells what is wrong
        return None


def _cut(image: Image.Image, boxes: np.ndarray, classes: np.ndarray, lines: Sequence[str]) -> Crop:
    """The surroundings of the last box, small enough to be kept."""
    box = boxes[-1]
    middle, side = (box[:2] + box[2:]) / 2, max(_AROUND * float((box[2:] - box[:2]).max()), _LEAST)
    size = np.array(image.size)
    low = np.clip(middle - side / 2, 0, size - 1).astype(int)
    high = np.minimum(np.ceil(middle + side / 2), size).astype(int).clip(low + 1)
    part = image.crop((*low.tolist(), *high.tolist()))
    part.thumbnail((_MOST, _MOST))
    boxes = (boxes - np.tile(low, 2)) * np.tile(np.array(part.size) / (high - low), 2)
    return Crop(np.asarray(part), boxes[-1], Drawable(boxes, classes), lines)
