"""What Pillow needs in memory to decode a picture, besides the picture itself."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

__all__ = ["BUFFERED", "bytes_of_decoding"]

# Bytes a pixel of the buffers that libraries hold at most, measured on pictures of 1200x1200 and 2000x2000 pixels.
_LIBRARIES = {"AVIF": 12, "WEBP": 17, "JPEG2000": 19}
_WIDE = 13  # the same where numbers of 16 and 32 bits become 8
BUFFERED = ("AVIF", "WEBP")  # formats whose buffers stay as long as Pillow's image does
_ROWS_OF_A_STRIP = 278  # tag of TIFF


def bytes_of_decoding(image: Image.Image) -> int:
    """What it will take to decode an image of which only the head was read, besides 4 bytes for each pixel.

    The most that is in use at once: on top of it come a few MB.
    """
    pixels, tags = image.width * image.height, getattr(image, "tag_v2", None)
    needed = _LIBRARIES.get(str(image.format), 0) * pixels
    if image.info.get("progressive") and (sampled := _sampled(image)):
        needed = int(2 * pixels * sampled)  # libjpeg holds two bytes of each sample until the last pass
    if tags is not None and image.info.get("compression") != "raw":  # libtiff maps the file, and holds a strip
        rows = min(int(tags.get(_ROWS_OF_A_STRIP, image.height)), image.height)
        needed = _length(image) + 4 * image.width * rows
    return max(needed, _WIDE * pixels) if image.mode.startswith(("I", "F")) else needed


def _sampled(image: Image.Image) -> float:
    """Samples that a JPEG has for each of its pixels, 1.5 where color is halved both ways."""
    of_layers = [across * down for _, across, down, *_ in getattr(image, "layer", ())]
    return sum(of_layers) / max(of_layers, default=1)


def _length(image: Image.Image) -> int:
    """Bytes of the file of an image."""
    file: Any = getattr(image, "fp", None)
    if file is None:
        return 0
    here = file.tell()
    length = file.seek(0, io.SEEK_END)
    file.seek(here)
    return int(length)
