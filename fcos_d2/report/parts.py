"""What a section of the report is made of: sentences, numbers, tables, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ..webpage import jpeg

__all__ = ["Picture", "Section", "Table", "number", "percent", "photo"]


@dataclass(frozen=True)
class Picture:
    """A picture of a section, as SVG or as the bytes of a JPEG.

    Attributes:
        name: of its file, without suffix; none twice in a section.
        caption: what is seen.
        group: pictures of one group, which follow each other, stand under its heading.
    """

    name: str
    caption: str
    svg: str = ""
    photo: bytes = b""
    group: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        shades: (rows, columns but the first) in 0..1, how deep each cell is colored; `None` for plain cells.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    shades: np.ndarray | None = None


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        text: paragraphs.
        tiles: (what, number) that stand out.
        numbers: all of them as data.
        listings: title -> text as it is, such as a config.
        absent: what is left out, and how to get it; sentences.
    """

    text: Sequence[str] = ()
    tiles: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    listings: Mapping[str, str] = field(default_factory=dict)
    absent: Sequence[str] = ()


def photo(name: str, caption: str, image: np.ndarray | Image.Image, group: str = "", largest: int = 640) -> Picture:
    """A photograph as a picture; of more than `largest` pixels a side it is made smaller."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = picture.copy()
    picture.thumbnail((largest, largest))
    return Picture(name, caption, photo=jpeg(picture, 85), group=group)


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def percent(part: float, whole: float) -> str:
    """A share, whose sign stays in its line."""
    return f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else "–"
