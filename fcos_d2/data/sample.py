"""Some images of a data set with their boxes, to be looked at."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FcosError
from .images import complaint, named, open_image, rgb
from .meant import shown
from .parts import Part

__all__ = ["Sample", "choose", "read_small", "sheet_names"]


@dataclass(frozen=True)
class Sample:
    """An image that was chosen, and its boxes."""

    part: str
    name: str
    path: Path
    size: tuple[int, int]  # width and height, upright
    boxes: list[list[float]]  # x1, y1, x2, y2 in pixels
    classes: list[int]  # indices of `sheet_names`


def sheet_names(parts: Mapping[str, Part]) -> list[str]:
    """Names of the classes, then of their crowds, then of boxes that training leaves out."""
    names = _names(parts)
    return [*names, *(f"{name} (crowd)" for name in names), *(f"{name} (left out)" for name in names)]


def choose(parts: Mapping[str, Part], count: int, seed: int = 0, classes: Collection[str] = ()) -> list[Sample]:
    """Images by chance, the same ones for the same seed, in the order of their names.

    Args:
        classes: names; only images with boxes of one of these are chosen, and only these boxes are shown.
    Raises:
        FcosError: a name is no class, or no image has boxes of these classes.
    """
    names = _names(parts)
    for name in classes:
        if name not in names:
            raise FcosError(f"There is no class {shown(name)!r}; there are {', '.join(map(shown, names[:20]))}.")
    samples = []
    for part, there in parts.items():
        index = {row["id"]: at for at, row in enumerate(sorted(there.coco["categories"], key=lambda row: row["id"]))}
        rows: dict[Any, list[dict]] = {row["id"]: [] for row in there.coco["images"]}
        for row in there.coco["annotations"]:
            if not classes or names[index[row["category_id"]]] in classes:
                rows[row["image_id"]].append(row)
        for image in there.coco["images"]:
            if rows[image["id"]] or not classes:
                samples.append(_sample(part, there, image, rows[image["id"]], index))
    if not samples:
        told = f" with boxes of {' or '.join(map(shown, classes))}" if classes else ""
        raise FcosError(f"There are no images{told} in {' and '.join(parts)}.")
    samples.sort(key=lambda one: (one.part, one.name))
    chosen = sorted(random.Random(seed).sample(range(len(samples)), min(count, len(samples))))
    return [samples[at] for at in chosen]


def _names(parts: Mapping[str, Part]) -> list[str]:
    categories = next(iter(parts.values())).coco["categories"]
    return [row["name"] for row in sorted(categories, key=lambda row: row["id"])]


def _sample(part: str, there: Part, image: dict, rows: list[dict], index: Mapping[int, int]) -> Sample:
    def kind(row: dict) -> int:
        return 2 if row["id"] in there.degenerate else int(bool(row["iscrowd"]))

    boxes = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
    classes = [index[row["category_id"]] + kind(row) * len(index) for row in rows]
    size = image["width"], image["height"]
    return Sample(part, image["file_name"], there.files[image["id"]], size, boxes, classes)


def read_small(sample: Sample, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Read an image at a side of `side` to twice as many pixels, at most its own; a large JPEG is never held whole.

    Returns:
        (H, W, 3) uint8 RGB, upright; (n, 4) its boxes in these pixels.
    Raises:
        FcosError: it cannot be read; names it.
    """
    with named(f"The image {sample.path}"):
        try:
            with open_image(sample.path) as image:
                if image.format == "JPEG":
                    image.draft("RGB", (side, side))
                picture = rgb(image)
                picture.thumbnail((2 * side, 2 * side))
        except FcosError:
            raise
        except Exception as error:  # Pillow's plugins raise anything
            raise FcosError(f"An image cannot be read: {complaint(error, sample.path)}.") from error
    factor = np.array(picture.size * 2) / np.array(sample.size * 2)
    return np.asarray(picture), np.reshape(sample.boxes, (-1, 4)) * factor
