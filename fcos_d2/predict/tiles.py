"""Detection in images that are too large for the network: in overlapping tiles, within a given memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from ..data.regions import Regions
from ..errors import FcosError
from .predictor import Predictor
from .seams import WHOLE, Found, joined

__all__ = ["Memory", "Tiling", "detect", "grid"]

_COARSEST = 128  # pixels between locations of the coarsest level: tiles begin at multiples, so that locations agree
_SMALLEST = 256  # pixels of a tile's side
_REDUCED = 2048  # pixels of the longer side of the reduced image, which the network is given at its usual size
_RESERVE = 1.25  # what tiles need, measured on one, is taken as so much


@dataclass(frozen=True)
class Tiling:
    """How an image is divided; lengths in pixels of the network input."""

    size: int = 1024  # side of a tile
    overlap: int = 256  # of neighbours, at least
    scale: float = 1.0  # pixels of the network input for one of the image
    batch: int = 1  # tiles that go through the network together
    whole: float = math.inf  # pixels of the input that the reduced image may have

    def __post_init__(self) -> None:
        if self.size < _SMALLEST:
            raise FcosError(f"--tile-size is {self.size}; it must be at least {_SMALLEST}.")
        if not 0 <= self.overlap <= self.size // 2:
            raise FcosError(f"--tile-overlap is {self.overlap}; it must be from 0 to {self.size // 2}, half of a tile.")
        if not self.scale > 0:
            raise FcosError(f"--tile-scale is {self.scale:g}; it must be above 0.")

    @property
    def step(self) -> int:
        """From a tile to the next one."""
        return max((self.size - self.overlap) // _COARSEST * _COARSEST, _COARSEST)


@dataclass(frozen=True)
class Memory:
    """A limit, and how to measure what is in use; on the CPU the resident memory of this process.

    `used()` are bytes now, `peak(run)` bytes that a call needs above that, or None where the system does not tell.
    """

    limit: int  # bytes
    used: Callable[[], int]
    peak: Callable[[Callable[[], Any]], int | None]


def grid(length: int, size: int, step: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of the tiles along a side; the last one may be shorter, none begins in the last overlap."""
    begin = 0
    while begin + size < length:
        yield begin, begin + size
        begin += step
    yield begin, length


def detect(
    predictor: Predictor, image: Regions, tiling: Tiling, tell: Callable[[int, int], None] = lambda done, all: None
) -> Instances:
    """What there is in an image, found tile by tile.

    Args:
        predictor: with its threshold.
        image: of any size; one that fits in a tile is given to the network as ever.
        tiling: how it is divided.
        tell: called with the tiles that are done, and all of them.
    Returns:
        `Instances` with pred_boxes, scores and pred_classes, on the CPU, boxes in pixels of the image.
    Raises:
        FcosError: the image cannot be read.
    """
    scale = tiling.scale
    width, height = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    across, down = (list(grid(side, tiling.size, tiling.step)) for side in (width, height))
    tiles = [(x0, y0, x1, y1) for y0, y1 in down for x0, x1 in across]
    if len(tiles) == 1:
        pixels = image.reduced(max(image.width, image.height))
        return predictor(pixels, image_format="RGB")["instances"].to("cpu")
    pixel = np.array([image.width / width, image.height / height] * 2)
    found = [_reduced(predictor, image, tiling.whole)]
    for start in range(0, len(tiles), tiling.batch):
        rows = range(start, min(start + tiling.batch, len(tiles)))
        boxes = [np.array(tiles[row]) * pixel for row in rows]
        sizes = [(tiles[row][2] - tiles[row][0], tiles[row][3] - tiles[row][1]) for row in rows]
        pictures = [image.part(tuple(box.tolist()), size) for box, size in zip(boxes, sizes)]
        results = predictor.predict(pictures, tiling.batch, "RGB", resize=False)
        found += [_moved(result["instances"], row, pixel, box) for result, row, box in zip(results, rows, boxes)]
        tell(rows[-1] + 1, len(tiles))
    together = Found(*(np.concatenate(x) for x in zip(*((f.boxes, f.scores, f.classes, f.part) for f in found))))
    overlap = (tiling.size - tiling.step) * pixel[:2]
    objects = joined(together, np.array(tiles) * pixel, (image.width, image.height), tuple(overlap.tolist()))
    return Instances(
        (image.height, image.width), pred_boxes=Boxes(torch.from_numpy(objects.boxes).float()),
        scores=torch.from_numpy(objects.scores).float(), pred_classes=torch.from_numpy(objects.classes),
    )  # fmt: skip


def _reduced(predictor: Predictor, image: Regions, most: float) -> Found:
    """What the whole image shows when it is as small as images usually are, or has `most` pixels if those are fewer."""
    pixels = image.reduced(_REDUCED)
    height, width = predictor.input_size(pixels, "RGB")
    usual = height * width <= most
    if not usual:
        pixels = image.reduced(max(int(max(height, width) * math.sqrt(most / (height * width))), 1))
    scale = np.array([image.width / pixels.shape[1], image.height / pixels.shape[0]] * 2)
    found = predictor.predict([pixels], image_format="RGB", resize=usual)[0]
    return _moved(found["instances"], WHOLE, scale, np.zeros(4))


def _moved(found: Instances, part: int, pixel: np.ndarray, box: np.ndarray) -> Found:
    """Detections of a part whose pixels are so large, in pixels of the image."""
    found = found.to("cpu")
    boxes = found.pred_boxes.tensor.double().numpy() * pixel + np.tile(box[:2], 2)
    count = len(found)
    return Found(boxes, found.scores.double().numpy(), found.pred_classes.numpy(), np.full(count, part, np.int64))


def bytes_of_a_pixel(predictor: Predictor, memory: Memory) -> float | None:
    """What a pixel of the network's input takes, with a reserve; None where the system does not tell."""
    side = 2 * _SMALLEST
    blank = np.zeros((side, side, 3), np.uint8)
    need = memory.peak(lambda: predictor.predict([blank], 1, "RGB", resize=False))
    return None if need is None else max(need, 1) * _RESERVE / side**2


def fitted(image: Regions, tiling: Tiling, memory: Memory, pixel: float, on_gpu: bool) -> Tiling:
    """The tiling with the largest tiles, up to those asked for, and then the most at a time, that a memory holds.

    Args:
        image: to be looked at, not decoded yet; on a GPU, it is not in the memory that counts.
        tiling: asked for.
        memory: which there is.
        pixel: see `bytes_of_a_pixel`.
        on_gpu: whether the network is there.
    Raises:
        FcosError: it does not even hold the image and the smallest tile; says what would do.
    """
    free = memory.limit - memory.used() - (0 if on_gpu else image.bytes_to_come)
    needed = max(pixel * _SMALLEST**2, 0 if on_gpu else image.bytes_of_decoding)
    if free < needed:
        width, height = image.stored
        raise FcosError(
            f"An image of {width}x{height} pixels needs {(memory.limit - free + needed) / 1e9:.2f} GB with the "
            f"smallest tiles, and --max-memory gives {memory.limit / 1e9:.2f} GB: raise it, or make the image smaller."
        )
    size = min(int((free / pixel) ** 0.5) // _COARSEST * _COARSEST, tiling.size)
    batch = max(int(free / (pixel * size**2)), 1)
    batch = min(tiling.batch, batch)
    return replace(tiling, size=size, overlap=min(tiling.overlap, size // 2), batch=batch, whole=free / pixel)
