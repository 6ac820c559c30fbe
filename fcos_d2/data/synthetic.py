"""Makes a detection data set of colored shapes, in COCO format, for the demo and for tests.

Every image comes from its own random generator, seeded by (seed, part, index): neither the order of work nor the number
of images changes it, and the same arguments give the same bytes.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import FcosError
from .layout import DatasetLayout, Split

__all__ = ["DEFAULT_CLASSES", "SHAPES", "generate"]

_VERSION = 2  # raise it when the same arguments give other images
_MARK = "synthetic.json"
_OVERSAMPLING = 4  # subpixels along a side while a shape is drawn
_SMALL_AREA = 150  # pixels; such shapes are about 16 px long

Outline = Sequence[np.ndarray]  # closed (n, 2) polygons within the unit circle; the second is a hole


def _regular(corners: int, turn: float = 0.0, radii: Sequence[float] = (1.0,)) -> np.ndarray:
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    radius = np.resize(np.asarray(radii), corners)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


_PLUS = np.array([(a, b) for a, b in ((1, 0.33), (0.33, 0.33), (0.33, 1))])
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
class _Recipe:
    """All that decides what an image looks like; its fields are recorded beside the data set."""

    seed: int
    sizes: tuple[tuple[int, int], ...]  # (width, height) in pixels, one drawn for each image
    classes: tuple[str, ...]
    max_objects: int
    empty_fraction: float
    crowd_fraction: float
    min_size: float  # longer side of the smallest shape, pixels
    max_size: float  # longer side of the largest shape, share of the image's shorter side
    min_visible: float  # share of a shape that must not be hidden


def generate(
    folder: str | Path,
    splits: Mapping[str, int] | None = None,
    image_size: tuple[int, int] | Sequence[tuple[int, int]] = (256, 256),
    seed: int = 0,
    classes: Sequence[str] = DEFAULT_CLASSES,
    max_objects: int = 8,
    empty_fraction: float = 0.05,
    crowd_fraction: float = 0.04,
    min_size: float = 8.0,
    max_size: float = 0.7,
    min_visible: float = 0.4,
    progress: Callable[[int, int], object] | None = None,
) -> DatasetLayout:
    """Write a synthetic data set, or reuse the one that is there.

    The folder gets `<part>.json` for each part, `images/` and `synthetic.json`, which records the arguments and is
    completed last: an interrupted generation is noticed and done again.

    Args:
        folder: where to; absent, empty, or made by this function with the same arguments.
        splits: number of images of each part; {"train": 240, "val": 60} by default.
        image_size: (width, height) in pixels, or several of them, of which each image draws one.
        classes: names among `SHAPES`.
        max_objects: most objects in an image, crowd regions aside.
        empty_fraction, crowd_fraction: share of images without any object, and with a crowd region (`iscrowd` 1).
        min_size: longer side of the smallest shapes, in pixels.
        max_size: longer side of the largest shapes, as a share of the image's shorter side.
        min_visible: share of a shape that others and the border leave visible at least.
        progress: called with the images done and all images, after each.
    Returns:
        Where the data set lies; its classes are `classes`, with category ids from 1.
    Raises:
        FcosError: an argument is out of range, or the folder holds something else.
    """
    splits = dict(splits) if splits is not None else {"train": 240, "val": 60}
    recipe = _Recipe(
        seed, _sizes(image_size), tuple(classes), max_objects, empty_fraction, crowd_fraction, min_size, max_size,
        min_visible,
    )  # fmt: skip
    _check(recipe, splits)
    folder = Path(folder).expanduser()
    layout = DatasetLayout("coco", folder, {part: Split(folder / f"{part}.json", folder / "images") for part in splits})
    record = json.loads(json.dumps({"version": _VERSION, "splits": splits, **vars(recipe)}))
    if _is_there(folder, record):
        return layout

    (folder / "images").mkdir(parents=True, exist_ok=True)
    _write(folder / _MARK, _json({**record, "complete": False}))
    numbers, total, digests = itertools.count(1), sum(splits.values()), {}
    for part, count in splits.items():
        tell = (lambda: progress(next(numbers), total)) if progress is not None else (lambda: None)
        digests[part] = _write_part(folder, recipe, part, count, tell)
    _write(folder / _MARK, _json({**record, "complete": True, "sha256": digests}))
    return layout


def _write_part(folder: Path, recipe: _Recipe, part: str, count: int, tell: Callable[[], object]) -> str:
    """Write the images and the annotations of a part, call `tell` after each image; returns the latter's SHA-256."""
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(count):
        pixels, objects = _make(recipe, part, index)
        name = _file_name(part, index)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, format="JPEG", quality=92)
        _write(folder / "images" / name, data.getvalue())
        images.append({"id": index + 1, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]})
        annotations += [{"image_id": index + 1, **row} for row in objects]
        tell()
    coco = {
        "info": {"description": f"synthetic shapes, {part}", "version": str(_VERSION)},
        "images": images,
        "annotations": [{"id": number, **row} for number, row in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(recipe.classes, start=1)],
    }
    _write(folder / f"{part}.json", _json(coco))
    return hashlib.sha256(_json(coco)).hexdigest()


def _sizes(image_size: Sequence) -> tuple[tuple[int, int], ...]:
    rows = [image_size] if image_size and not isinstance(image_size[0], Sequence) else list(image_size)
    return tuple((int(width), int(height)) for width, height in rows)


def _check(recipe: _Recipe, splits: Mapping[str, int]) -> None:
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
    if not folder.is_dir() or not (folder / _MARK).is_file():
        raise FcosError(f"{folder} holds something other than a synthetic data set; choose an empty or a new folder.")
    try:
        there = dict(json.loads((folder / _MARK).read_text(encoding="utf-8")))
        complete, digests = there.pop("complete"), there.pop("sha256", {})
    except (ValueError, KeyError, TypeError) as error:
        raise FcosError(f"{folder / _MARK} is not a record of a synthetic data set; choose a new folder.") from error
    if there != record:
        differing = [key for key in record if there.get(key) != record[key]]
        values = ", ".join(f"{key} {there.get(key)} instead of {record[key]}" for key in differing)
        raise FcosError(
            f"{folder} holds a synthetic data set made with other arguments ({values or 'of a newer version'}); "
            "choose a new folder or delete this one."
        )
    return complete and all(
        (folder / f"{part}.json").is_file()
        and hashlib.sha256((folder / f"{part}.json").read_bytes()).hexdigest() == digests.get(part)
        and all((folder / "images" / _file_name(part, index)).is_file() for index in range(count))
        for part, count in record["splits"].items()
    )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; `write_atomically` would wait for the disk after each image."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_bytes(data)
    os.replace(temporary, path)


# One image


def _eroded(cover: np.ndarray, times: int) -> np.ndarray:
    """The least of each 3x3 neighbourhood, so many times; what lies outside is full."""
    for _ in range(times):
        padded = np.pad(cover, 1, constant_values=1)
        rows = np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
        cover = np.minimum(np.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return cover


def _make(recipe: _Recipe, part: str, index: int) -> tuple[np.ndarray, list[dict]]:
    """Draw one image, (H, W, 3) uint8 RGB; its annotations have no ids."""
    rng = np.random.default_rng([recipe.seed, zlib.crc32(part.encode()), index])
    width, height = recipe.sizes[rng.integers(len(recipe.sizes))]
    image = _background(rng, width, height)
    scene = _Scene(image, recipe.min_visible)
    if not _is_due(index, recipe.empty_fraction, first=2):
        if _is_due(index, recipe.crowd_fraction, first=1):
            _add_crowd(rng, scene, recipe)
        _add_objects(rng, scene, recipe)
    noise = rng.normal(0.0, rng.uniform(1.0, 6.0), image.shape).astype(np.float32)
    return np.clip(image + noise, 0, 255).astype(np.uint8), list(scene.annotations())


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
    rows: slice
    columns: slice
    cover: np.ndarray  # (h, w) float32 in 0..1
    full: int  # pixels that the whole shape covers, those outside the image included
    crowd: bool = False


class _Scene:
    """An image and what is visible of the shapes in it; a later shape hides earlier ones."""

    def __init__(self, image: np.ndarray, min_visible: float) -> None:
        self.image = image
        self.min_visible = min_visible
        self.owner = np.full(image.shape[:2], -1, np.int32)  # index of the shape seen at each pixel
        self.shapes: list[_Shape] = []
        self.visible: list[int] = []  # pixels of each shape that are seen

    def fits(self, shape: _Shape) -> bool:
        """Whether enough of the new shape, and then of all shapes under it, is visible; small ones need nearly all."""
        mask = shape.cover >= 0.5
        if np.count_nonzero(mask) < self._least(shape):
            return False
        hidden = np.bincount(self.owner[shape.rows, shape.columns][mask] + 1, minlength=len(self.shapes) + 1)[1:]
        return all(
            seen - lost >= self._least(old) for old, seen, lost in zip(self.shapes, self.visible, hidden, strict=True)
        )

    def _least(self, shape: _Shape) -> float:
        """Pixels of a shape that must be visible: a cut one of a few pixels could not be told from others."""
        share = 0.9 if shape.crowd or shape.full < _SMALL_AREA else self.min_visible
        return share * shape.full

    def add(self, shape: _Shape) -> None:
        mask = shape.cover >= 0.5
        owner = self.owner[shape.rows, shape.columns]
        for index, lost in zip(*np.unique(owner[mask], return_counts=True), strict=True):
            if index >= 0:
                self.visible[index] -= int(lost)
        owner[mask] = len(self.shapes)
        self.shapes.append(shape)
        self.visible.append(int(np.count_nonzero(mask)))

    def paint(self, shape: _Shape, color: np.ndarray, rng: np.random.Generator) -> None:
        """Blend the shape into the image, shaded from corner to corner and with a darker or lighter rim."""
        patch = self.image[shape.rows, shape.columns]
        height, width = shape.cover.shape
        slope = np.linspace(-1, 1, height)[:, None] * rng.normal() + np.linspace(-1, 1, width)[None] * rng.normal()
        fill = color + 10.0 * slope[..., None]
        longer = max(height, width)
        if longer >= 14:
            inside = _eroded(shape.cover, 1 + longer // 70)
            rim = np.clip(color * rng.choice([0.55, 1.35]), 0, 255)
            fill = fill * inside[..., None] + rim * (1 - inside[..., None])
        patch += shape.cover[..., None] * (fill - patch)
        np.clip(patch, 0, 255, out=patch)

    def annotations(self) -> Iterator[dict]:
        """Boxes around what is visible of each shape, in COCO's terms."""
        for index, shape in enumerate(self.shapes):
            mask = self.owner == index
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            x, y = int(columns[0]), int(rows[0])
            row = {
                "category_id": shape.label + 1,
                "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                "area": int(np.count_nonzero(mask)),
                "iscrowd": int(shape.crowd),
            }
            if shape.crowd:
                row["segmentation"] = {"counts": _run_lengths(mask), "size": list(mask.shape)}
            yield row


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: column by column, the zeros first."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def _draw(
    rng: np.random.Generator, name: str, label: int, size: float, center: tuple[float, float], scene: _Scene
) -> _Shape | None:
    """A shape, turned, slightly stretched, with its longer side `size` pixels; None where it lies outside the image."""
    turn, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.18)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * [stretch, 1.0]
    polygons = [polygon @ matrix for polygon in SHAPES[name]]
    low, high = polygons[0].min(0), polygons[0].max(0)
    scale = size / (high - low).max()
    shift = np.asarray(center) - scale * (low + high) / 2  # the box's middle lies at the center
    corner = np.floor(center - scale * (high - low) / 2).astype(int) - 1
    width, height = np.ceil(scale * (high - low)).astype(int) + 3
    canvas = Image.new("L", (int(width) * _OVERSAMPLING, int(height) * _OVERSAMPLING))
    for polygon, fill in zip(polygons, (255, 0)):
        points = np.round((polygon * scale + shift - corner) * _OVERSAMPLING)
        ImageDraw.Draw(canvas).polygon([(x, y) for x, y in points.tolist()], fill=fill)
    cover = np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / 255
    rows, columns = (slice(max(first, 0), min(first + length, limit)) for first, length, limit in (
        (int(corner[1]), int(height), scene.image.shape[0]), (int(corner[0]), int(width), scene.image.shape[1])
    ))  # fmt: skip
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    cut = cover[rows.start - corner[1] : rows.stop - corner[1], columns.start - corner[0] : columns.stop - corner[0]]
    return _Shape(label, rows, columns, np.ascontiguousarray(cut), int(np.count_nonzero(cover >= 0.5)))


def _color(rng: np.random.Generator, scene: _Scene, shape: _Shape) -> np.ndarray:
    """A lively color that stands out from what lies under the shape, (3,) RGB in 0..255."""
    mask = shape.cover >= 0.5
    under = scene.image[shape.rows, shape.columns][mask].mean(0)
    best, best_distance = np.zeros(3), -1.0
    for _ in range(8):
        hue, saturation, value = rng.uniform(0, 1), rng.uniform(0.43, 1), rng.uniform(0.35, 1)
        color = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
        distance = float(np.linalg.norm(color - under))
        if distance > best_distance:
            best, best_distance = color, distance
        if distance > 110:
            break
    return best


def _add_objects(rng: np.random.Generator, scene: _Scene, recipe: _Recipe) -> None:
    height, width = scene.image.shape[:2]
    largest = recipe.max_size * min(width, height)
    count = int(rng.integers(min(2, recipe.max_objects), recipe.max_objects + 1))
    sizes = np.exp(rng.uniform(np.log(recipe.min_size), np.log(largest), count))  # as many small as large, per octave
    # Mostly large ones first, so that small ones are not buried; not always.
    for size in sizes[np.argsort(-np.log(sizes) + rng.normal(0.0, 0.5, count))]:
        label = int(rng.integers(len(recipe.classes)))
        for _ in range(20):
            center = (rng.uniform(0, width), rng.uniform(0, height))
            shape = _draw(rng, recipe.classes[label], label, size, center, scene)
            if shape is not None and scene.fits(shape):
                scene.paint(shape, _color(rng, scene, shape), rng)
                scene.add(shape)
                break


def _add_crowd(rng: np.random.Generator, scene: _Scene, recipe: _Recipe) -> None:
    """A heap of small shapes of one class, annotated as one region: their convex hull, with sides in 64 directions."""
    height, width = scene.image.shape[:2]
    label = int(rng.integers(len(recipe.classes)))
    spread = rng.uniform(0.1, 0.18) * min(width, height)
    middle = rng.uniform(2 * spread, (width - 2 * spread, height - 2 * spread))
    covered = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(12, 24))):
        center = middle + np.clip(rng.normal(0.0, 1.0, 2), -1.7, 1.7) * spread
        size = rng.uniform(recipe.min_size, max(recipe.min_size, spread) * 1.2)
        shape = _draw(rng, recipe.classes[label], label, size, (float(center[0]), float(center[1])), scene)
        if shape is not None and (mask := shape.cover >= 0.5).any():
            scene.paint(shape, _color(rng, scene, shape), rng)
            covered[shape.rows, shape.columns] |= mask
    if covered.any():
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        hull = np.ones((height, width), bool)
        for angle in np.arange(64) * (2 * np.pi / 64):
            along = x * np.cos(angle) + y * np.sin(angle)
            hull &= along <= along[covered].max()
        everywhere = slice(0, height), slice(0, width)
        scene.add(_Shape(label, *everywhere, hull.astype(np.float32), int(np.count_nonzero(hull)), crowd=True))
