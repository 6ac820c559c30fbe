"""Colors and type that all pictures share, and how a picture gets to disk."""

from __future__ import annotations

import colorsys
import hashlib
import io
import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import Taken, numbered, write_atomically
from .fonts import legible

__all__ = [
    "EDGE", "FAINT", "INK", "PAPER", "class_color", "class_name", "free_name", "save", "save_picture",
]  # fmt: skip

Color = tuple[int, int, int]  # RGB in 0..255

# Told apart on photographs and from each other; further classes continue by the golden angle.
_PALETTE = (
    (255, 87, 51), (0, 168, 255), (46, 204, 64), (255, 195, 0), (177, 13, 201), (0, 206, 186),
    (255, 65, 149), (127, 140, 255), (163, 228, 53), (128, 128, 0), (0, 104, 130), (141, 85, 60),
)  # fmt: skip
INK, FAINT, PAPER, EDGE = (33, 37, 41), (108, 117, 125), (255, 255, 255), (222, 226, 230)
_COMMENT = "drawn by fcos_d2 "  # in the pictures of `save_picture`, before a digest: a later run knows its own
_WIDEST = 24  # letters of a class name in a picture; those of East Asia count twice
_LONGEST = 65_500  # pixels of a side that a JPEG can have


def class_color(index: int) -> Color:
    """RGB in 0..255 of a class index; always the same for the same index."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    hue = (index * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.6, 0.95)[index % 3], (0.95, 1.0, 0.75)[index // 3 % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


def class_name(label: int, names: Any) -> str:
    """The name of a class, `legible` and short enough for a label; a class without one is shown by its number."""
    name = legible(str(names[label])) if names is not None and 0 <= label < len(names) else f"class {label}"
    pieces = re.findall(r"\\(?:U\w{8}|u\w{4}|x\w{2}|\w)|.", name, re.DOTALL)  # an escape is not cut
    widths = [sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in piece) for piece in pieces]
    ends = list(itertools.accumulate(widths))
    if not ends or ends[-1] <= _WIDEST:
        return name
    return "".join(piece for piece, end in zip(pieces, ends) if end < _WIDEST) + "…"


def save(path: str | Path, write: Callable[[Any], object]) -> Path:
    """Write a file whole or not at all; `write` gets it open for bytes."""
    path = Path(path).expanduser()
    write_atomically(path, write)
    return path


def save_picture(image: np.ndarray, path: Path) -> Path:
    """Write (H, W, 3) uint8 RGB as a JPEG that `free_name` recognises; smaller where a JPEG cannot be as large."""
    picture, data = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((_LONGEST, _LONGEST))
    picture.save(data, format="JPEG", quality=92)
    start, rest = data.getvalue()[:2], data.getvalue()[2:]
    return save(path, lambda file: file.write(start + _signature(path.name, rest) + rest))


def free_name(folder: Path, stem: str, taken: Taken | Collection[Path]) -> Path:
    """A name for a picture that is not in `taken` and stands for no file but a picture of `save_picture`.

    One that somebody has changed, renamed or linked to since is theirs.
    """
    used = taken if isinstance(taken, Taken) else Taken(taken)
    paths = numbered(folder, stem, ".jpg")
    return next(path for path in paths if path not in used and (not os.path.lexists(path) or _is_own(path)))


def _signature(name: str, rest: bytes) -> bytes:
    """A JPEG's comment that fits one name and one content: what follows the first two bytes."""
    text = (_COMMENT + hashlib.sha256(os.fsencode(name) + rest).hexdigest()).encode()
    return b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text


def _is_own(path: Path) -> bool:
    try:
        data = b"" if path.is_symlink() else path.read_bytes()
    except OSError:
        return False
    length = len(_signature(path.name, b""))
    return len(data) > 2 + length and data[2 : 2 + length] == _signature(path.name, data[2 + length :])
