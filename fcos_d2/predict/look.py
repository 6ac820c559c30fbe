"""How a detector looks at an image: as a whole, or in tiles. A job reads, asks and draws through these."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..data.sources import Source, read
from ..errors import FcosError
from .batches import answers

if TYPE_CHECKING:  # an exported detector (`fcos_d2.engines`) looks without PyTorch
    from detectron2.structures import Instances

    from ..data.regions import Regions
    from .predictor import Predictor
    from .tiles import Memory, Tiling

__all__ = ["InTiles", "Look", "Pixels", "Whole", "tags"]

_DRAWN = 4096  # pixels of the longer side of a picture of an image that was looked at in tiles
_LEAST_DRAWN, _BYTES_OF_DRAWING = 1024, 21  # the same at least; bytes of each pixel in all copies and as a file
_ROOMY, _LABELLED, _THINNEST = 50, 400, 0.15  # objects of usual strokes, and with labels; share of usual strokes


class Look(Protocol):
    """What a job asks for; an image is whatever `read` gives."""

    @property
    def batch(self) -> int:
        """Images that are best asked for together."""

    def read(self, source: Source) -> Any: ...

    def frame(self, pixels: np.ndarray) -> Any:
        """A (H, W, 3) uint8 RGB array as an image."""

    def size(self, image: Any) -> tuple[int, int]:
        """(width, height) in pixels."""

    def find(self, images: Sequence[Any], tell: Callable[[int, int], None]) -> list[Any]:
        """What there is in each image, `Instances` on the CPU or `runtime.Detections`, or why it cannot be told."""

    def draw(self, image: Any, found: Any) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""

    def describe(self, found: Any) -> list[dict[str, Any]]:
        """Detections as plain data, best first, see `Predictor.describe`."""


@dataclass(frozen=True)
class Pixels:
    """Images that are (H, W, 3) uint8 RGB arrays, each looked at as a whole."""

    batch: int = 1
    limit: int = 1 << 26  # bytes of a download
    timeout: float = 20.0  # seconds

    def read(self, source: Source) -> np.ndarray:
        return read(source, self.limit, self.timeout)

    def frame(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def size(self, image: np.ndarray) -> tuple[int, int]:
        return image.shape[1], image.shape[0]

    def find(self, images: Sequence[np.ndarray], tell: Callable[[int, int], None]) -> list[Any]:
        return answers(self.together, images, FcosError)

    def together(self, images: Sequence[np.ndarray]) -> Sequence[Any]:
        """What there is in each image; raises FcosError if one cannot be looked at."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Whole(Pixels):
    """By a predictor, equal sizes in batches."""

    predictor: Predictor

    def together(self, images: Sequence[np.ndarray]) -> list[Instances]:
        found = self.predictor.predict(images, self.batch, "RGB")
        return [result["instances"].to("cpu") for result in found]

    def draw(self, image: np.ndarray, found: Instances) -> np.ndarray:
        return self.predictor.draw(image, found, "RGB", tags=tags(found))

    def describe(self, found: Instances) -> list[dict[str, Any]]:
        return self.predictor.describe(found)


@dataclass(frozen=True)
class InTiles:
    """Each image in tiles, the pictures drawn smaller."""

    predictor: Predictor
    tiling: Tiling
    memory: Memory | None = None
    limit: int = 1 << 26
    timeout: float = 20.0
    batch: int = 1

    @cached_property
    def _pixel(self) -> float | None:
        """Bytes, measured once."""
        from .tiles import bytes_of_a_pixel

        return bytes_of_a_pixel(self.predictor, self.memory) if self.memory else None

    def read(self, source: Source) -> Regions:
        from ..data.regions import Regions

        return Regions.from_source(source, self.limit, self.timeout)

    def frame(self, pixels: np.ndarray) -> Regions:
        from ..data.regions import Regions

        return Regions.of(pixels)

    def size(self, image: Regions) -> tuple[int, int]:
        return image.width, image.height

    def find(self, images: Sequence[Regions], tell: Callable[[int, int], None]) -> list[Instances | FcosError]:
        from .tiles import detect, fitted

        found: list[Instances | FcosError] = []
        for image in images:
            try:
                tiling, on_gpu = self.tiling, self.predictor.device.type != "cpu"
                if self.memory and self._pixel:
                    tiling = fitted(image, tiling, self.memory, self._pixel, on_gpu)
                found.append(detect(self.predictor, image, tiling, tell))
            except FcosError as error:
                found.append(error)
        return found

    def draw(self, image: Regions, found: Instances) -> np.ndarray:
        from detectron2.structures import Boxes, Instances

        picture = image.reduced(self._drawn(image))
        boxes = Boxes(found.pred_boxes.tensor.clone())
        boxes.scale(picture.shape[1] / image.width, picture.shape[0] / image.height)
        small = Instances(picture.shape[:2], **{**found.get_fields(), "pred_boxes": boxes})
        size = min(1.0, math.sqrt(_ROOMY / max(len(small), 1)))  # the more there are, the thinner
        return self.predictor.draw(
            picture, small, "RGB", tags=tags(found), labels=len(small) <= _LABELLED, size=max(size, _THINNEST),
            smooth=self.memory is None,
        )  # fmt: skip

    def describe(self, found: Instances) -> list[dict[str, Any]]:
        return self.predictor.describe(found)

    def _drawn(self, image: Regions) -> int:
        """Pixels of the longer side of a picture that the memory holds while it is drawn."""
        longest = max(image.width, image.height)
        if not self.memory or self.predictor.device.type != "cpu":
            return _DRAWN
        pixels = max(self.memory.limit - self.memory.used(), 0) / _BYTES_OF_DRAWING
        held = int(longest * math.sqrt(pixels / (image.width * image.height)))
        return min(max(held, _LEAST_DRAWN), _DRAWN)


def tags(found: Any) -> list[str] | None:
    """What is written beside each box for its track."""
    numbers = found.track_ids if not hasattr(found, "has") or found.has("track_ids") else None
    return None if numbers is None else ["" if number is None else f"#{number}" for number in numbers]
