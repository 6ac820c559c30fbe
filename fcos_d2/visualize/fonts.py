"""Text of any script in pictures: in a font of the system that has its letters, else by their numbers; no boxes."""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont, features

__all__ = ["font_for", "legible", "load_font", "text_length", "write"]

_JOINERS = "\u200c\u200d"  # zero width; they shape the letters beside them
_NUMBERED = ("Cc", "Cn", "Co", "Cs", "Zl", "Zp")  # categories of what no font shows
_LATIN = "\u0020", "\u024f"  # from the first to the last of the letters that DejaVu Sans has without a gap
_NO_LETTERS = ("adobeblank", "adobenotdef", "lastresort", "unicodebmpfallback")  # have a box or nothing for everything


@functools.cache
def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so that no system has to have it."""
    return ImageFont.truetype(_dejavu(bold), size)


def legible(text: str) -> str:
    """The text with what no font of this system can show written as Python does it, like `\\u732b`."""
    found = ""
    for letter in unicodedata.normalize("NFC", text):
        joins = letter not in _JOINERS or (found and _path_of(found[-1]) != _dejavu())
        found += _spelled(letter) if joins else ""
    return found


def text_length(text: str, font: ImageFont.FreeTypeFont) -> float:
    """Pixels that a `legible` text takes in a font of `load_font`, and in others where that lacks letters."""
    return sum(face.getlength(piece) for piece, face in _runs(text, font))


def write(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, font: ImageFont.FreeTypeFont, fill: Any,
    anchor: str = "la",
) -> None:  # fmt: skip
    """Draw a `legible` text as `ImageDraw.text` does, with an anchor of "la", "lm", "ma" or "mm"."""
    runs = _runs(text, font)
    if [face for _, face in runs] == [font]:
        pen.text(place, text, fill=fill, font=font, anchor=anchor)
        return
    ascent, descent = font.getmetrics()
    x = place[0] - (text_length(text, font) / 2 if anchor[0] == "m" else 0)
    base = place[1] + (ascent if anchor[1] == "a" else (ascent - descent) / 2)
    for piece, face in runs:
        pen.text((x, base), piece, fill=fill, font=face, anchor="ls")
        x += face.getlength(piece)


def font_for(text: str) -> tuple[str, str | None]:
    """A text for a library that takes one font, and the file of that; None for DejaVu Sans, which matplotlib has."""
    text = legible(text)
    lacking = {letter for letter in text if not _has(_dejavu(), letter)} - {*_JOINERS}
    if not lacking:
        return text, None
    path = next((path for path in _system_fonts() if all(_has(path, letter) for letter in text)), None)
    return (text, path) if path else ("".join(_number(x) if x in lacking else x for x in text), None)


def _runs(text: str, font: ImageFont.FreeTypeFont) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """Pieces of a text, each with the font that has its letters; marks and spaces stay with the letter before."""
    found: list[tuple[str, str]] = []
    for letter in text:
        last = found[-1][1] if found else _dejavu()
        stays = letter in _JOINERS or (unicodedata.category(letter)[0] in "MZ" and _has(last, letter))
        path = last if stays else _path_of(letter) or _dejavu()
        if found and path == last:
            found[-1] = (found[-1][0] + letter, path)
        else:
            found.append((letter, path))
    return [(piece, font if path == _dejavu() else _load(path, round(font.size))) for piece, path in found]


@functools.cache
def _spelled(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cf":  # invisible: directions, soft hyphens
        return letter if letter in _JOINERS else ""
    hidden = category in _NUMBERED or (unicodedata.bidirectional(letter) in ("R", "AL") and not _shapes())
    return _number(letter) if hidden or _path_of(letter) is None else letter


def _number(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


@functools.cache
def _shapes() -> bool:
    """Whether Pillow can join letters and write from right to left."""
    return bool(features.check("raqm"))


@functools.cache
def _path_of(letter: str) -> str | None:
    """The file of a font with a letter; the fonts that have had others come first, so that a name has one font."""
    if _has(_dejavu(), letter):
        return _dejavu()
    path = next((path for path in (*_used, *_system_fonts()) if _has(path, letter)), None)
    if path is not None and path not in _used:
        _used.append(path)
    return path


_used: list[str] = []


@functools.cache
def _system_fonts() -> tuple[str, ...]:
    """Files of the system's fonts, plain ones first."""
    from matplotlib.font_manager import findSystemFonts

    def rank(path: str) -> tuple[Any, ...]:
        name = path.replace("\\", "/").rpartition("/")[2].lower()
        styled = sum(word in name for word in ("bold", "black", "italic", "oblique", "light", "thin", "mono", "serif"))
        return styled - ("regular" in name), name

    names: Iterable[str] = findSystemFonts()
    return tuple(sorted((path for path in names if not any(word in path.lower() for word in _NO_LETTERS)), key=rank))


@functools.cache
def _has(path: str, letter: str) -> bool:
    """Whether a font that can be drawn in any size has a letter.

    Of Latin letters nothing is opened: matplotlib, which knows what a font has, takes long to import.
    """
    if path == _dejavu() and _LATIN[0] <= letter <= _LATIN[1]:
        return True
    face = _face(path)
    return face is not None and face.get_char_index(ord(letter)) != 0


@functools.cache
def _face(path: str) -> Any:
    """What matplotlib knows of a font file; None where that is damaged, or made of pictures of one size."""
    from matplotlib.ft2font import FT2Font

    with suppress(Exception):  # FreeType's, Pillow's
        face = FT2Font(path)
        _load(path, 16)
        return face if face.scalable else None
    return None


@functools.cache
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@functools.cache
def _dejavu(bold: bool = False) -> str:
    name = f"fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf"
    spec = importlib.util.find_spec("matplotlib")  # which is found, and not imported
    if spec is not None and spec.origin is not None:
        usual = Path(spec.origin).parent / "mpl-data" / name
        if usual.is_file():
            return str(usual)
    import matplotlib  # of a system that keeps its data elsewhere

    return f"{matplotlib.get_data_path()}/{name}"
