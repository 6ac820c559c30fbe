"""Colors and type that all pictures share, and how a picture gets to disk."""

from __future__ import annotations

import colorsys
import functools
import io
import itertools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFont

from ..files import write_atomically

__all__ = [
    "EDGE", "FAINT", "INK", "PAPER", "class_color", "class_name", "free_name", "load_font", "save", "save_picture",
]  # fmt: skip

Color = tuple[int, int, int]  # RGB in 0..255

# Told apart on photographs and from each other; further classes continue by the golden angle.
_PALETTE = (
    (255, 87, 51), (0, 168, 255), (46, 204, 64), (255, 195, 0), (177, 13, 201), (0, 206, 186),
    (255, 65, 149), (127, 140, 255), (163, 228, 53), (128, 128, 0), (0, 104, 130), (141, 85, 60),
)  # fmt: skip
INK, FAINT, PAPER, EDGE = (33, 37, 41), (108, 117, 125), (255, 255, 255), (222, 226, 230)
_COMMENT = b"drawn by fcos_d2"  # in the pictures of `save_picture`, so that a later run knows its own


def class_color(index: int) -> Color:
    """RGB in 0..255 of a class index; always the same for the same index."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    hue = (index * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.6, 0.95)[index % 3], (0.95, 1.0, 0.75)[index // 3 % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


def class_name(label: int, names: Any) -> str:
    """The name of a class, short enough for a label; a class without one is shown by its number."""
    name = str(names[label]) if names is not None and 0 <= label < len(names) else f"class {label}"
    return name if len(name) <= 24 else name[:23] + "…"


@functools.cache
def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so that no system has to have it."""
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf", size)


def save(path: str | Path, write: Callable[[Any], object]) -> Path:
    """Write a file whole or not at all; `write` gets it open for bytes."""
    path = Path(path).expanduser()
    write_atomically(path, write)
    return path


def save_picture(image: np.ndarray, path: Path) -> Path:
    """Write (H, W, 3) uint8 RGB as a JPEG that `free_name` recognises."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, format="JPEG", quality=92, comment=_COMMENT)
    return save(path, lambda file: file.write(data.getvalue()))


def free_name(folder: Path, stem: str, taken: Collection[Path]) -> Path:
    """A name for a picture that is not in `taken` and stands for no file but a picture of `save_picture`."""
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    paths = (folder / f"{name}.jpg" for name in names)
    return next(path for path in paths if path not in taken and (not path.exists() or _is_own(path)))


def _is_own(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get("comment") == _COMMENT
    except Exception:  # Pillow's plugins raise anything
        return False
