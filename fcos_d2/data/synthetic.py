"""Makes a detection data set of colored shapes, in COCO format, for the demo and for tests.

Every image comes from its own random generator, seeded by (seed, part, index): neither the order of work nor the number
of images changes it, and the same arguments give the same bytes.
"""

from __future__ import annotations

import colorsys
import hashlib
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..errors import FcosError
from ..files import write_atomically
from .layout import DatasetLayout, Split

__all__ = ["DEFAULT_CLASSES", "SHAPES", "Recipe", "generate"]

_VERSION = 2  # raise it when the same arguments give other images
_MARK = "synthetic.json"
_OVERSAMPLING = 4  # subpixels along a side while a shape is drawn
_SMALL_AREA = 150  # pixels; such shapes are about 16 px long

Outline = Sequence[np.ndarray]  # closed (n, 2) polygons within the unit circle; the second is a hole


def _regular(corners: int, turn: float = 0.0, radii: Sequence[float] = (1.0,)) -> np.ndarray:
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    radius = np.resize(np.asarray(radii), corners)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


_PLUS = np.array([(1, 0.33), (0.33, 0.33), (0.33, 1)])
_QUARTERS = [np.array([(c, s), (-s, c)]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]

SHAPES: dict[str, Outline] = {
    "circle": [_regular(64)],
    "square": [_regular(4, np.pi / 4)],
    "triangle": [_regular(3, -np.pi / 2)],
    "star": [_regular(10, -np.pi / 2, (1.0, 0.42))],
    "ring": [_regular(64), 0.55 * _regular(64)],
    "cross": [np.concatenate([_PLUS @ quarter for quarter in _QUARTERS])],
    "hexagon": [_regular(6)],
}
DEFAULT_CLASSES = ("circle", "square", "triangle", "star", "ring")


@dataclass(frozen=True)
class Recipe:
    """All that decides what an image looks like; recorded beside the data set."""

    seed: int = 0
    sizes: Sequence[Sequence[int]] = ((256, 256),)  # (width, height) in pixels, of which each image draws one
    classes: Sequence[str] = DEFAULT_CLASSES  # names among `SHAPES`
    max_objects: int = 8  # in an image, crowd regions aside
    empty_fraction: float = 0.05  # share of images without any object
    crowd_fraction: float = 0.04  # share of images with a crowd region (`iscrowd` 1)
    min_size: float = 8.0  # longer side of the smallest shapes, pixels
    max_size: float = 0.7  # longer side of the largest shapes, share of the image's shorter side
    min_visible: float = 0.4  # share of a shape that others and the border leave visible at least


def generate(
    folder: str | Path,
    splits: Mapping[str, int] | None = None,
    image_size: Sequence[int] | Sequence[Sequence[int]] = (256, 256),
    progress: Callable[[int, int], object] | None = None,
    **options: Any,
) -> DatasetLayout:
    """Write a synthetic data set, or reuse the one that is there.

    The folder gets `<part>.json` for each part, `images/` and `synthetic.json`, which records the arguments and is
    completed last: an interrupted generation is noticed and done again.

    Args:
        folder: where to; absent, empty, or made by this function with the same arguments.
        splits: number of images of each part; {"train": 240, "val": 60} by default.
        image_size: one of the recipe's sizes, or several.
        progress: called with the images done and all images, after each.
        options: the other fields of `Recipe`.
    Returns:
        Where the data set lies; its classes are `classes`, with category ids from 1.
    Raises:
        FcosError: an argument is out of range, or the folder holds something else.
    """
    splits = dict(splits) if splits is not None else {"train": 240, "val": 60}
    recipe = Recipe(sizes=np.array(image_size, int).reshape(-1, 2).tolist(), **options)
    _check(recipe, splits)
    folder = Path(folder).expanduser()
    layout = DatasetLayout("coco", folder, {part: Split(folder / f"{part}.json", folder / "images") for part in splits})
    record = json.loads(json.dumps({"version": _VERSION, "splits": splits, **vars(recipe)}))
    if _is_there(folder, record):
        return layout
    (folder / "images").mkdir(parents=True, exist_ok=True)
    _write(folder / _MARK, {**record, "complete": False})
    steps, total, digests = itertools.count(1), sum(splits.values()), {}
    for part, count in splits.items():
        images, annotations = [], []
        for index in range(count):
            image, objects = _make_image(recipe, part, index, folder / "images")
            images.append(image)
            annotations += objects
            if progress is not None:
                progress(next(steps), total)
        digests[part] = _write(folder / f"{part}.json", {
            "info": {"description": f"synthetic shapes, {part}", "version": str(_VERSION)},
            "images": images,
            "annotations": [{"id": number, **row} for number, row in enumerate(annotations, start=1)],
            "categories": [{"id": number, "name": name} for number, name in enumerate(recipe.classes, start=1)],
        })  # fmt: skip
    _write(folder / _MARK, {**record, "complete": True, "sha256": digests})
    return layout


def _check(recipe: Recipe, splits: Mapping[str, int]) -> None:
    unknown = [name for name in recipe.classes if name not in SHAPES]
    if unknown or not recipe.classes or len(set(recipe.classes)) < len(recipe.classes):
        raise FcosError(
            f"The synthetic classes {list(recipe.classes)} must be different names among {', '.join(SHAPES)}."
        )
    if not splits or any(count < 1 for count in splits.values()) or any(not part.isalnum() for part in splits):
        raise FcosError(f"The synthetic parts {dict(splits)} must name at least one part and count from 1 image.")
    if recipe.seed < 0 or recipe.max_objects < 1:
        raise FcosError(f"seed {recipe.seed} must be 0 or more, and max_objects {recipe.max_objects} 1 or more.")
    for name in ("empty_fraction", "crowd_fraction"):
        if not 0 <= getattr(recipe, name) <= 1:
            raise FcosError(f"{name} is {getattr(recipe, name)}; it must lie between 0 and 1.")
    if not 0 < recipe.min_visible <= 1:
        raise FcosError(f"min_visible is {recipe.min_visible}; it must lie above 0 and be at most 1.")
    for size in recipe.sizes:
        if recipe.min_size < 4 or recipe.max_size > 1 or recipe.max_size * min(size) < recipe.min_size:
            raise FcosError(
                f"Shapes from {recipe.min_size} px to {recipe.max_size} of the shorter side do not fit an image of "
                f"{size[0]}x{size[1]} pixels; the smallest must have 4 px, and the largest more than the smallest."
            )


# What lies in the folder


def _file_name(part: str, index: int) -> str:
    return f"{part}_{index:06d}.jpg"


def _is_there(folder: Path, record: dict) -> bool:
    """Whether the folder holds the data set in full; False where it may be written."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / _MARK).is_file():
        raise FcosError(f"{folder} holds something other than a synthetic data set; choose an empty or a new folder.")
    try:
        there = dict(json.loads((folder / _MARK).read_text(encoding="utf-8")))
        complete, digests = there.pop("complete"), there.pop("sha256", {})
    except (ValueError, KeyError, TypeError) as error:
        raise FcosError(f"{folder / _MARK} is not a record of a synthetic data set; choose a new folder.") from error
    if there != record:
        others = [f"{key} {there.get(key)} instead of {made}" for key, made in record.items() if there.get(key) != made]
        raise FcosError(
            f"{folder} holds a synthetic data set made with other arguments "
            f"({', '.join(others) or 'of a newer version'}); choose a new folder or delete this one."
        )
    return complete and all(
        (folder / f"{part}.json").is_file()
        and hashlib.sha256((folder / f"{part}.json").read_bytes()).hexdigest() == digests.get(part)
        and all((folder / "images" / _file_name(part, index)).is_file() for index in range(count))
        for part, count in record["splits"].items()
    )


def _write(path: Path, value: object) -> str:
    """Write JSON; returns its SHA-256."""
    data = json.dumps(value, separators=(",", ":")).encode()
    write_atomically(path, lambda file: file.write(data))
    return hashlib.sha256(data).hexdigest()


# One image


def _make_image(recipe: Recipe, part: str, index: int, folder: Path) -> tuple[dict, list[dict]]:
    """Draw and write an image; COCO's records of it and of its annotations, which have no ids."""
    rng = np.random.default_rng([recipe.seed, zlib.crc32(part.encode()), index])
    width, height = recipe.sizes[int(rng.integers(len(recipe.sizes)))]
    scene = _Scene(rng, recipe, _background(rng, width, height))
    if not _is_due(index, recipe.empty_fraction, first=2):
        if _is_due(index, recipe.crowd_fraction, first=1):
            _add_crowd(scene)
        _add_objects(scene)
    noise = rng.normal(0.0, rng.uniform(1.0, 6.0), scene.image.shape).astype(np.float32)
    name = _file_name(part, index)
    Image.fromarray(np.clip(scene.image + noise, 0, 255).astype(np.uint8)).save(folder / name, quality=92)
    annotations = [{"image_id": index + 1, **row} for row in scene.annotations()]
    return {"id": index + 1, "file_name": name, "width": width, "height": height}, annotations


def _is_due(index: int, fraction: float, first: int) -> bool:
    """Spread a share of the images evenly, so that even a small part has one; `first` is the first of them."""
    if fraction >= 1:
        return True
    steps = index - first
    return steps >= 0 and fraction > 0 and (steps == 0 or int(steps * fraction) > int((steps - 1) * fraction))


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A gradient with blotches and stripes, (height, width, 3) float32 in 0..255."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = (x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle) + 0.5
    ends = rng.uniform(40, 215, (2, 3)) * 0.5 + rng.uniform(40, 215) * 0.5  # halfway to one common grey
    image = ends[0] + (ends[1] - ends[0]) * np.clip(along, 0, 1)[..., None]
    for cells, strength in ((3, 18.0), (9, 12.0), (32, 7.0)):
        for channel in range(3):
            blotches = Image.fromarray(rng.normal(0.0, strength, (cells, cells)).astype(np.float32))
            image[..., channel] += np.asarray(blotches.resize((width, height), Image.Resampling.BICUBIC))
    if rng.random() < 0.5:
        angle, period = rng.uniform(0, np.pi), rng.uniform(5, 40)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        image += rng.uniform(4, 14) * wave[..., None]
    return np.clip(image, 0, 255).astype(np.float32)


@dataclass
class _Shape:
    """A drawn shape, cut to the image."""

    label: int
    place: tuple[slice, slice]  # rows and columns
    cover: np.ndarray  # (h, w) float32 in 0..1
    full: int  # pixels that the whole shape covers, those outside the image included
    crowd: bool = False

    @property
    def mask(self) -> np.ndarray:
        return self.cover >= 0.5


class _Scene:
    """An image and what is visible of the shapes in it; a later shape hides earlier ones."""

    def __init__(self, rng: np.random.Generator, recipe: Recipe, image: np.ndarray) -> None:
        self.rng, self.recipe, self.image = rng, recipe, image
        self.height, self.width = image.shape[:2]
        self.owner = np.zeros(image.shape[:2], np.int32)  # number of the shape seen at each pixel, from 1; 0 for none
        self.shapes: list[_Shape] = []
        self.visible = np.zeros(0, int)  # pixels of each shape that are seen

    def draw(self, label: int, size: float, center: np.ndarray) -> _Shape:
        """A shape, turned, slightly stretched, with its longer side `size` pixels, not yet in the scene."""
        turn, stretch = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.85, 1.18)
        matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * [stretch, 1.0]
        polygons = [polygon @ matrix for polygon in SHAPES[self.recipe.classes[label]]]
        low, high = polygons[0].min(0), polygons[0].max(0)
        scale = size / (high - low).max()
        shift = center - scale * (low + high) / 2  # the box's middle lies at the center
        left, top = (np.floor(center - scale * (high - low) / 2).astype(int) - 1).tolist()
        width, height = (np.ceil(scale * (high - low)).astype(int) + 3).tolist()
        canvas = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
        for polygon, fill in zip(polygons, (255, 0)):
            points = np.round((polygon * scale + shift - (left, top)) * _OVERSAMPLING)
            ImageDraw.Draw(canvas).polygon([(x, y) for x, y in points.tolist()], fill=fill)
        cover = np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / 255
        rows, columns = slice(max(top, 0), top + height), slice(max(left, 0), left + width)
        cut = cover[rows.start - top : self.height - top, columns.start - left : self.width - left]
        return _Shape(label, (rows, columns), np.ascontiguousarray(cut), int(np.count_nonzero(cover >= 0.5)))

    def add(self, shape: _Shape) -> bool:
        """Put a shape over the others if enough of each stays visible; a cut one of few pixels looks like any other."""
        shapes, under = [*self.shapes, shape], self.owner[shape.place]
        lost = np.bincount(under[shape.mask], minlength=len(shapes))[1:]
        visible = np.append(self.visible - lost, np.count_nonzero(shape.mask))
        for each, seen in zip(shapes, visible):
            share = 0.9 if each.crowd or each.full < _SMALL_AREA else self.recipe.min_visible
            if seen < share * each.full:
                return False
        under[shape.mask] = len(shapes)
        self.shapes, self.visible = shapes, visible
        return True

    def paint(self, shape: _Shape) -> None:
        """Blend a shape into the image, shaded from corner to corner and with a darker or lighter rim."""
        patch = self.image[shape.place]
        color = _color(self.rng, patch[shape.mask].mean(0))
        height, width = shape.cover.shape
        down, across = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
        fill = color + 10.0 * (down * self.rng.normal() + across * self.rng.normal())[..., None]
        longer = max(height, width)
        if longer >= 14:
            inside = np.asarray(Image.fromarray(shape.cover).filter(ImageFilter.MinFilter(3 + longer // 70 * 2)))
            rim = np.clip(color * self.rng.choice([0.55, 1.35]), 0, 255)
            fill = fill * inside[..., None] + rim * (1 - inside[..., None])
        patch += shape.cover[..., None] * (fill - patch)
        np.clip(patch, 0, 255, out=patch)

    def annotations(self) -> Iterator[dict]:
        """Boxes around what is visible of each shape, in COCO's terms."""
        for number, shape in enumerate(self.shapes, start=1):
            mask = self.owner == number
            left, top, right, bottom = Image.fromarray(mask).getbbox() or (0, 0, 0, 0)
            row = {
                "category_id": shape.label + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(np.count_nonzero(mask)),
                "iscrowd": int(shape.crowd),
            }
            if shape.crowd:
                row["segmentation"] = {"counts": _run_lengths(mask), "size": list(mask.shape)}
            yield row


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: column by column, the zeros first."""
    flat = mask.flatten(order="F").tolist()
    runs = [len(list(run)) for _, run in itertools.groupby(flat)]
    return [0, *runs] if flat[0] else runs


def _color(rng: np.random.Generator, under: np.ndarray) -> np.ndarray:
    """A lively color that stands out from another one, (3,) RGB in 0..255."""
    tried: list[np.ndarray] = []
    while len(tried) < 8 and not (tried and np.linalg.norm(tried[-1] - under) > 110):
        tried.append(255 * np.array(colorsys.hsv_to_rgb(*rng.uniform((0, 0.43, 0.35), 1))))
    return max(tried, key=lambda color: np.linalg.norm(color - under))


def _add_objects(scene: _Scene) -> None:
    rng, recipe = scene.rng, scene.recipe
    largest = recipe.max_size * min(scene.width, scene.height)
    count = int(rng.integers(min(2, recipe.max_objects), recipe.max_objects + 1))
    sizes = np.exp(rng.uniform(np.log(recipe.min_size), np.log(largest), count))  # as many small as large, per octave
    # Mostly large ones first, so that small ones are not buried; not always.
    for size in sizes[np.argsort(-np.log(sizes) + rng.normal(0.0, 0.5, count))]:
        label = int(rng.integers(len(recipe.classes)))
        for _ in range(20):
            shape = scene.draw(label, size, rng.uniform(0, (scene.width, scene.height)))
            if scene.add(shape):
                scene.paint(shape)
                break


def _add_crowd(scene: _Scene) -> None:
    """A heap of small shapes of one class, annotated as one region: their convex hull, with sides in 64 directions."""
    rng, shorter = scene.rng, min(scene.width, scene.height)
    label = int(rng.integers(len(scene.recipe.classes)))
    spread = rng.uniform(0.1, 0.18) * shorter
    middle = rng.uniform(2 * spread, (scene.width - 2 * spread, scene.height - 2 * spread))
    covered = np.zeros((scene.height, scene.width), bool)
    for _ in range(int(rng.integers(12, 24))):
        center = middle + np.clip(rng.normal(0.0, 1.0, 2), -1.7, 1.7) * spread
        size = rng.uniform(scene.recipe.min_size, max(scene.recipe.min_size, spread) * 1.2)
        shape = scene.draw(label, size, center)
        if shape.mask.any():
            scene.paint(shape)
            covered[shape.place] |= shape.mask
    y, x = np.mgrid[0 : scene.height, 0 : scene.width].astype(np.float32)
    hull = np.ones_like(covered)
    for angle in np.arange(64) * (2 * np.pi / 64):
        along = x * np.cos(angle) + y * np.sin(angle)
        hull &= along <= along[covered].max()
    scene.add(_Shape(label, np.s_[:, :], hull.astype(np.float32), int(np.count_nonzero(hull)), crowd=True))
