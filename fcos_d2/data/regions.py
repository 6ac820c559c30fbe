"""A large image, of which one part after the other is looked at: it is in memory once, and no part is copied early."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from ..errors import FcosError
from .decoding import BUFFERED, bytes_of_decoding
from .download import download
from .images import complaint, named, open_image, orientation, rgb, turned
from .sources import Source

__all__ = ["Regions"]

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

_BAND, _MARGIN = 256, 2  # rows of a reduced image that are made together, and those beside them that they are made of
_PIECE = 1 << 22  # pixels of the image that such rows are made of, at most
_BYTES_OF_A_PIXEL = 4  # of Pillow, which keeps RGB with an empty byte


class Regions:
    """An image by its parts, all upright (H, W, 3) uint8 RGB.

    It is decoded when its size or a part is asked for first.

    Attributes:
        stored: (width, height) in pixels as its head says, before it is turned.

    Raises:
        FcosError: there is no such image, or it cannot be read; names it.
    """

    def __init__(self, image: Image.Image, name: str, decoded: bool = False) -> None:
        self._image, self._name, self._loaded, self._turn = image, name, decoded, 1
        self.stored: tuple[int, int] = image.size

    @property
    def width(self) -> int:
        """In pixels, upright."""
        return self._image.size[self._load() >= 5]

    @property
    def height(self) -> int:
        """In pixels, upright."""
        return self._image.size[self._load() < 5]

    @property
    def bytes_to_come(self) -> int:
        """What it will take from when it is decoded on."""
        return 0 if self._loaded else self.stored[0] * self.stored[1] * _BYTES_OF_A_PIXEL

    @property
    def bytes_of_decoding(self) -> int:
        """What it will take besides while it is decoded."""
        return 0 if self._loaded else bytes_of_decoding(self._image)

    @classmethod
    def from_source(cls, source: Source, limit: int, timeout: float) -> Regions:
        """Of a file or an address; of a file only the head is read now. See `download` for `limit` and `timeout`."""
        name = source.where if source.is_address else f"The image {source.where}"
        file: Any = source.where
        if source.is_address:
            file = io.BytesIO(download(source.where, limit, timeout))
        with named(name):
            try:
                return cls(open_image(file), name)
            except FcosError:
                raise
            except FileNotFoundError as error:
                raise FcosError(f"{name} does not exist.") from error
            except Exception as error:  # Pillow's plugins raise anything
                raise FcosError(f"An image cannot be read: {complaint(error, file)}.") from error

    @classmethod
    def of(cls, pixels: np.ndarray, name: str = "A frame") -> Regions:
        """Of a (H, W, 3) uint8 RGB array."""
        return cls(Image.fromarray(pixels), name, decoded=True)

    def part(self, box: Box, size: tuple[int, int] | None = None) -> np.ndarray:
        """What lies in (left, top, right, bottom), scaled to (width, height) where that is another size.

        Fractions of pixels count in a part that is scaled.
        """
        stored = _stored(box, self._load(), self.width, self.height)
        width, height = size or (round(box[2] - box[0]), round(box[3] - box[1]))
        if self._turn >= 5:
            width, height = height, width
        x0, y0, x1, y1 = map(round, stored)
        if (x1 - x0, y1 - y0) == (width, height):
            return self._upright(self._image.crop((x0, y0, x1, y1)))
        colours = self._image.mode if self._image.mode in ("RGB", "L") else ""
        image, at = (self._image, stored) if colours else self._cut(stored)
        return self._upright(image.resize((width, height), Image.Resampling.BILINEAR, box=at))

    def reduced(self, longest: int) -> np.ndarray:
        """The whole, with at most so many pixels on its longer side; it takes little memory besides, made in bands."""
        factor = min(1.0, longest / max(self.width, self.height))
        width, height = max(round(self.width * factor), 1), max(round(self.height * factor), 1)
        if (width, height) == (self.width, self.height):
            return self.part((0, 0, width, height))
        out, each = np.empty((height, width, 3), np.uint8), self.height / height
        rows = min(_BAND, max(int(_PIECE / (self.width * each)), 1))
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            above, below = max(top - _MARGIN, 0), min(bottom + _MARGIN, height)
            band = self.part((0, above * each, self.width, below * each), (width, below - above))
            out[top:bottom] = band[top - above : bottom - above]
        return out

    def _cut(self, box: Box) -> tuple[Image.Image, Box]:
        """A part in RGB, since palettes cannot be averaged, and where in it the box lies."""
        left, top, right, bottom = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
        part = _plain(self._image.crop((left, top, right, bottom)))
        return part, (box[0] - left, box[1] - top, box[2] - left, box[3] - top)

    def _upright(self, part: Image.Image) -> np.ndarray:
        return np.asarray(turned(_plain(part), self._turn))

    def _load(self) -> int:
        """Decode the image if that was not done; EXIF's orientation of what lies in memory."""
        if not self._loaded:
            with named(self._name):
                try:
                    self._image.load()
                    self._turn = orientation(self._image)
                    if self._image.mode.startswith(("I", "F")):  # the range of all its numbers counts
                        self._image, self._turn = rgb(self._image), 1
                    elif self._image.format in BUFFERED:
                        self._image = self._image.copy()
                except FcosError:
                    raise
                except Exception as error:  # Pillow's plugins raise anything
                    raise FcosError(f"An image cannot be read: {complaint(error, None)}.") from error
            self._loaded = True
        return self._turn


def _stored(box: Box, orientation: int, width: int, height: int) -> Box:
    """Where a box of an upright image of a width and a height lies in the image as it is stored."""
    x0, y0, x1, y1 = box
    if orientation in (2, 3, 6, 7):  # its right is the left of what is stored, or the top
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    return (y0, x0, y1, x1) if orientation >= 5 else (x0, y0, x1, y1)


def _plain(part: Image.Image) -> Image.Image:
    """A part in RGB, without the orientation that it has from the whole."""
    part.info = {key: value for key, value in part.info.items() if key == "transparency"}
    return rgb(part)
