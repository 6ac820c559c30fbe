"""A small data set that is right, to be broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcos_d2.data import FORMATS, find_dataset
from fcos_d2.data.audit import Audit, Rule, audit

WIDTH, HEIGHT = 160, 120


def picture(seed: int) -> Image.Image:
    """Blotches that no other seed has."""
    blotches = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(blotches).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def coco(images: int, first: int, seed: int) -> dict[str, Any]:
    """Boxes anywhere in pictures, four in each, of three classes in turn."""
    rng = np.random.default_rng(seed)
    rows, annotations = [], []
    for place in range(images):
        rows.append({"id": place + 1, "file_name": f"{first + place}.png", "width": WIDTH, "height": HEIGHT})
        for _ in range(4):
            side = rng.uniform((20, 20), (WIDTH * 0.6, HEIGHT * 0.6))
            low = rng.uniform(0, 1, 2) * ((WIDTH, HEIGHT) - side)
            number = len(annotations) + 1
            box = [round(float(x), 2) for x in (*low, *side)]
            annotations.append({
                "id": number, "image_id": place + 1, "category_id": 1 + number % 3, "bbox": box,
                "area": round(box[2] * box[3], 2), "iscrowd": 0,
            })  # fmt: skip
    categories = [{"id": n, "name": name} for n, name in ((1, "cat"), (2, "dog"), (3, "cow"))]
    return {"images": rows, "annotations": annotations, "categories": categories}


class Data:
    """The data set in a folder, and its files as they are to be broken."""

    def __init__(self, folder: Path, train: int = 15, val: int = 6) -> None:
        self.folder = folder
        (folder / "images").mkdir(parents=True)
        for seed in range(train + val):
            picture(seed).save(folder / "images" / f"{seed}.png")
        self.train, self.val = coco(train, 0, 1), coco(val, train, 2)
        self.save()

    def save(self) -> None:
        for name in ("train", "val"):
            (self.folder / f"{name}.json").write_text(json.dumps(getattr(self, name)), encoding="utf-8")

    def box(self, place: int, part: str = "train") -> dict[str, Any]:
        return getattr(self, part)["annotations"][place]

    def image(self, name: str) -> Path:
        return self.folder / "images" / name


def check(folder: Path, rule: Rule = Rule(), **options: Any) -> Audit:  # noqa: B008
    layout = find_dataset(folder)
    reader: Callable[..., dict] = next(row.read for row in FORMATS if row.name == layout.format)
    return audit(layout, reader, rule, **options)


def balance(counts: dict[str, Any]) -> int:
    """0 where every annotation stands in one place."""
    gone = counts["used"] + counts["clipped"] + sum(counts["dropped"].values()) + counts["unassignable"]
    return counts["in"] - gone
